"""Paths and URIs as text: keys made from paths, and absolute URIs of the images that data refers to."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from typing import Literal
from urllib.parse import unquote

from transforms.errors import RowRejected

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
SAME_SCHEME = {"gcs": "gs", "s3a": "s3", "local": "file"}
WEB_SCHEMES = ("http", "https")
SHOWN = 200  # characters of a reference in a message


def scheme_of(uri: str) -> str:
    """The scheme in lower case, one name for those that mean the same; "file" for a plain path."""
    match = SCHEME.match(uri)
    return canonical_scheme(match.group(1)) if match else "file"


def canonical_scheme(name: str) -> str:
    """The one name of a scheme that a user may write in capitals, with `://`, or by another name."""
    name = name.removesuffix("://").lower()
    return SAME_SCHEME.get(name, name)


def store_of(uri: str) -> str:
    """What fails as a whole: the scheme with the bucket or host (`gs://bucket`), "file" for the disks of a machine."""
    scheme = scheme_of(uri)
    match = SCHEME.match(uri)
    return scheme if scheme == "file" or match is None else f"{scheme}://{uri[match.end() :].split('/')[0].lower()}"


def brief(reference: str) -> str:
    """A reference as messages quote it."""
    return repr(reference if len(reference) <= SHOWN else reference[:SHOWN] + "...")


def folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]


def relative_to(uri: str, root: str) -> str:
    """`uri` below `root`; the file's name alone if it is not below."""
    base = root.rstrip("/") + "/"
    return uri[len(base) :] if uri.startswith(base) else uri.rpartition("/")[2]


def stem(path: str) -> str:
    """A path without the extension of its file name; `.gz` goes together with the extension before it."""
    folder, slash, name = path.rpartition("/")
    if name.lower().endswith(".gz"):
        name = name[:-3]
    base, dot, _ = name.rpartition(".")
    return folder + slash + (base if dot and base else name)


def resolve(reference: str, table: str, root: str, schemes: tuple[str, ...]) -> str:
    """An image reference found in `table` as an absolute path or URI.

    `file://` URIs become paths, percent-decoded unless a file has the very name. Raises `RowRejected`
    ("uri_not_allowed") for a scheme not in `schemes`, also of a link in an fsspec chain (`zip://a.jpg::https://...`),
    for a `file://` URI of another host, and for a relative path out of `root`.
    """
    reference = reference.strip()
    match = SCHEME.match(reference)
    if match or reference.startswith("/"):
        for scheme in _schemes_of(reference):
            if scheme not in schemes:
                allowed = ", ".join(schemes)
                raise RowRejected(
                    "uri_not_allowed", f"{brief(reference)} is {scheme}://, allowed by uri_schemes: {allowed}"
                )
        if match is None:
            return reference
        rest = reference[match.end() :]
        return _local_path(rest) if scheme_of(reference) == "file" else f"{match.group(1).lower()}://{rest}"
    match = SCHEME.match(table)
    prefix = match.group(0) if match else ""
    path = posixpath.normpath(posixpath.join("/", folder_of(table)[len(prefix) :], reference))
    base = posixpath.normpath(posixpath.join("/", root[len(prefix) :]))
    if path != base and not path.startswith(base.rstrip("/") + "/"):
        raise RowRejected("uri_not_allowed", f"{brief(reference)} leads out of the dataset's folder {root}")
    return prefix + (path.lstrip("/") if prefix and prefix != "file://" else path)


def _schemes_of(reference: str) -> list[str]:
    """The schemes of an absolute reference: several for an fsspec chain, which paths and web addresses never are."""
    scheme = scheme_of(reference)
    if scheme == "file" or scheme in WEB_SCHEMES:
        return [scheme]
    return [canonical_scheme(link) if link.isalnum() else scheme_of(link) for link in reference.split("::")]


def _local_path(rest: str) -> str:
    """The path of a `file://` URI, given all after `file://`."""
    host, _, path = rest.partition("/")
    if host.lower() not in ("", "localhost"):
        raise RowRejected(
            "uri_not_allowed", f"{brief(f'file://{rest}')} names a host, not an absolute path of this one"
        )
    path = f"/{path}"
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path
    return path if decoded != path and not os.path.exists(decoded) and os.path.exists(path) else decoded


def spellings(uri: str) -> list[str]:
    """`uri` in other normalisations of Unicode: a name written on one system is often composed, on another not."""
    folder, slash, name = uri.rpartition("/")
    candidates = [folder + slash + unicodedata.normalize(form, name) for form in FORMS]
    candidates += [unicodedata.normalize(form, uri) for form in FORMS]
    return [other for other in dict.fromkeys(candidates) if other != uri]

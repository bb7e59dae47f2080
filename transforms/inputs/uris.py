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


def scheme_of(uri: str) -> str:
    """The scheme in lower case, one name for those that mean the same; "file" for a plain path."""
    match = SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    return SAME_SCHEME.get(scheme, scheme)


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

    Raises `RowRejected` ("uri_not_allowed") for a scheme not in `schemes`, and for a relative path out of `root`.
    """
    reference = reference.strip()
    if SCHEME.match(reference) or reference.startswith("/"):
        scheme = scheme_of(reference)
        if scheme not in schemes:
            allowed = ", ".join(schemes)
            raise RowRejected("uri_not_allowed", f"{reference!r} is {scheme}://, allowed by uri_schemes: {allowed}")
        return _local_path(reference) if scheme == "file" else reference
    match = SCHEME.match(table)
    prefix = match.group(0) if match else ""
    path = posixpath.normpath(posixpath.join("/", folder_of(table)[len(prefix) :], reference))
    base = posixpath.normpath(posixpath.join("/", root[len(prefix) :]))
    if path != base and not path.startswith(base.rstrip("/") + "/"):
        raise RowRejected("uri_not_allowed", f"{reference!r} leads out of the dataset's folder {root}")
    return prefix + (path.lstrip("/") if prefix and prefix != "file://" else path)


def _local_path(reference: str) -> str:
    """The path of a file:// URI, which is percent-encoded; an encoding that leads nowhere is taken as a name. A plain
    path stays as it is."""
    if not reference.lower().startswith("file://"):
        return reference
    path = reference[len("file://") :]
    if path.lower().startswith("localhost/"):
        path = path[len("localhost") :]
    decoded = unquote(path, errors="surrogateescape")
    return decoded if decoded == path or os.path.exists(decoded) or not os.path.exists(path) else path


def spellings(uri: str) -> list[str]:
    """`uri` in other normalisations of Unicode: a name written on one system is often composed, on another not."""
    folder, slash, name = uri.rpartition("/")
    candidates = [folder + slash + unicodedata.normalize(form, name) for form in FORMS]
    candidates += [unicodedata.normalize(form, uri) for form in FORMS]
    return [other for other in dict.fromkeys(candidates) if other != uri]

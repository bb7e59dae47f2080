"""Patterns of a user -> files and their format: braces, globs, folders and lists, local or in any store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from braceexpand import braceexpand

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats import BY_NAME, formats_of
from transforms.inputs.formats.format import Format, Found, Inputs
from transforms.inputs.formats.tables import METADATA
from transforms.inputs.request import Kind
from transforms.inputs.uris import folder_of, relative_to, stem

HIDDEN = ("_", ".")  # begin the names of files that tools make for themselves, such as _SUCCESS or .cache
FEW_NAMES = 8  # of a pattern in braces, which are looked up one by one


def find_inputs(patterns: Iterable[str], input_format: str | None, kind: Kind = "images") -> Inputs:
    """List the inputs that hold rows of a kind: in the order of the patterns, each sorted by name, none twice.

    Raises `UsageError` if a pattern matches nothing, or its format cannot be inferred.
    """
    formats = formats_of(kind)
    if input_format is not None and input_format not in formats:
        raise UsageError(f"expected one of {', '.join(formats)}, not {input_format}", option="input_format")
    every: dict[str, Found] = {}
    named: set[str] = set()  # single files named outright, of any ending
    found_formats: dict[str, str] = {}  # format -> the pattern that has it
    for pattern in patterns:
        matched = _matches(pattern)
        if len(matched) == 1 and matched[0].uri == storage.absolute(pattern):
            named.add(matched[0].uri)
        for found in matched:
            every.setdefault(found.uri, found)
        found_formats.setdefault(input_format or _infer(pattern, matched, formats, kind), pattern)
    if len(found_formats) > 1:
        shown = "; ".join(f"{pattern} is {name}" for name, pattern in found_formats.items())
        raise UsageError(f"the inputs are of several formats ({shown}): run one job for each, or give input_format")
    chosen = formats[next(iter(found_formats))]
    files = [found for found in every.values() if found.uri in named or chosen.matches(found.uri)]
    if chosen.name == "parquet" and len(files) > 1 and kind != "prompts":
        described = _described(every.values())
        files = [found for found in files if found.uri in named or stem(found.uri) not in described]
    if not files:
        raise UsageError(f"no matching files: {' '.join(patterns)} has none of format {chosen.name}")
    chosen_uris = {found.uri for found in files}
    return Inputs(chosen.name, tuple(files), tuple(found for found in every.values() if found.uri not in chosen_uris))


def _matches(pattern: str) -> list[Found]:
    """The files that one pattern names. Raises `UsageError` if there are none."""
    try:
        expanded = list(braceexpand(pattern.replace("\\", "\\\\")))
    except ValueError:  # braces that do not pair up: a name that has one
        expanded = [pattern]
    found: list[Found] = []

    @cache  # thousands of names cost a few requests
    def listed(folder: str) -> dict[str, storage.FileInfo]:
        return {info.uri: info for info in storage.list_files(f"{folder}/*")}

    for one in map(storage.absolute, expanded):
        by_name = len(expanded) <= FEW_NAMES or storage.has_wildcard(one)
        known = None if by_name else listed(folder_of(one)).get(one)
        infos = [known] if known else _list(one)
        infos = [info for info in infos if not _is_hidden(info.uri, _root(one))]
        if not infos:
            raise UsageError(f"no matching files: {one}" + (f" (of {pattern})" if one != pattern else ""))
        single = len(infos) == 1 and infos[0].uri == one
        root = folder_of(one) if single else _root(one)
        found += [Found(info, root) for info in infos]
    for item in found:
        try:
            item.uri.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{item.uri!r}: the name of this file is not UTF-8; rename it") from error
    return found


def _list(pattern: str) -> list[storage.FileInfo]:
    """A single file is asked for by its name first: not every store can list (a web server)."""
    if not storage.has_wildcard(pattern):
        try:
            return [storage.stat(pattern)]
        except FileNotFoundError:
            pass  # a folder, or nothing
    return storage.list_files(pattern)


def _root(pattern: str) -> str:
    """The folder that a pattern starts from: all of it, or what comes before its first wildcard."""
    before = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return pattern if before == pattern else folder_of(before)


def _is_hidden(uri: str, root: str) -> bool:
    return any(part.startswith(HIDDEN) for part in relative_to(uri, root).split("/")) and uri != root


def _infer(pattern: str, matched: list[Found], formats: Mapping[str, Format], kind: Kind) -> str:
    """The format of the files that a pattern matched, from their endings. Raises `UsageError` if that leaves a choice.

    Files that describe images do not count beside those: img2dataset's Parquet files, and `METADATA`.
    """
    counts = {name: sum(format.matches(found.uri) for found in matched) for name, format in formats.items()}
    if len(matched) > 1 and kind != "prompts":
        described = _described(matched)
        parquet = formats["parquet"]
        counts["parquet"] -= sum(parquet.matches(found.uri) and stem(found.uri) in described for found in matched)
    if counts.get("files"):
        for found in matched:
            if METADATA.matches(found.uri):
                counts[found.uri.rpartition(".")[2].lower()] -= 1
    present = {name: count for name, count in counts.items() if count}
    if len(present) == 1:
        return next(iter(present))
    if not present:
        examples = ", ".join(found.uri.rpartition("/")[2] for found in matched[:3])
        raise UsageError(
            f"{pattern}: no format can be inferred from the file extensions ({examples}); give input_format, one of "
            f"{', '.join(formats)}"
        )
    shown = ", ".join(f"{count} of {name}" for name, count in present.items())
    raise UsageError(f"{pattern} has files of several formats ({shown}): give input_format, or a narrower pattern")


def _described(every: Iterable[Found]) -> set[str]:
    """Paths of tars and of folders of images without their endings: a Parquet file so called only describes them, as
    img2dataset writes it."""
    stems: set[str] = set()
    for found in every:
        if BY_NAME["webdataset"].matches(found.uri):
            stems.add(stem(found.uri).removesuffix(".tar"))
        elif BY_NAME["files"].matches(found.uri):
            stems.add(folder_of(found.uri))
    return stems

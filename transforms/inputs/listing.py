"""What the user named -> the files that are there: brace patterns, globs, folders and lists, local or in any store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from braceexpand import braceexpand

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.request import Kind
from transforms.inputs.samples import IMAGE_EXTENSIONS
from transforms.inputs.uris import folder_of, relative_to, stem

ENDINGS: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "files": tuple(f".{extension}" for extension in IMAGE_EXTENSIONS),
    "csv": (".csv", ".csv.gz"),
    "tsv": (".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "txt": (".txt", ".txt.gz"),
}
PROMPT_FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet")
FORMATS = tuple(name for name in ENDINGS if name != "txt")  # of images, beside which a .txt is a caption; and of codes
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
HIDDEN = ("_", ".")  # leading letters of names that tools keep to themselves, such as _SUCCESS or .cache
FEW_NAMES = 8  # are looked up one by one
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Found:
    """A file and the folder that keys made from its path are relative to."""

    info: storage.FileInfo
    root: str

    @property
    def uri(self) -> str:
        return self.info.uri


@dataclass(frozen=True)
class Inputs:
    """The files of a job in order: those that rows come from, and what lies beside them (texts, json)."""

    format: str
    files: tuple[Found, ...]
    beside: tuple[Found, ...]


def find_inputs(patterns: Iterable[str], input_format: str | None, kind: Kind = "images") -> Inputs:
    """List the inputs: in the order of the patterns, each sorted by name, none twice. `kind` is what rows are wanted.

    Raises `UsageError` where a pattern matches nothing, or the format cannot be told.
    """
    formats_read = PROMPT_FORMATS if kind == "prompts" else FORMATS
    if input_format is not None and input_format not in formats_read:
        raise UsageError(f"--input_format {input_format}: expected one of {', '.join(formats_read)}")
    every: dict[str, Found] = {}
    named: set[str] = set()  # single files named outright, whatever they are called
    formats: dict[str, str] = {}  # format -> the pattern that has it
    for pattern in patterns:
        matched = _matches(pattern)
        if len(matched) == 1 and matched[0].uri == storage.absolute(pattern):
            named.add(matched[0].uri)
        for found in matched:
            every.setdefault(found.uri, found)
        formats.setdefault(input_format or _sniff(pattern, matched, formats_read, kind), pattern)
    if len(formats) > 1:
        shown = "; ".join(f"{pattern} is {name}" for name, pattern in formats.items())
        raise UsageError(f"the inputs are of several formats ({shown}): run one job for each, or give --input_format")
    chosen = next(iter(formats))
    files = [found for found in every.values() if found.uri in named or _is(found.uri, chosen)]
    if chosen == "parquet" and len(files) > 1 and kind != "prompts":
        described = _described(every.values())
        files = [found for found in files if found.uri in named or stem(found.uri) not in described]
    if not files:
        raise UsageError(f"no matching files: {' '.join(patterns)} has none of format {chosen}")
    chosen_uris = {found.uri for found in files}
    return Inputs(chosen, tuple(files), tuple(found for found in every.values() if found.uri not in chosen_uris))


def _matches(pattern: str) -> list[Found]:
    """Files that one pattern names. Raises `UsageError` where there are none."""
    try:
        expanded = list(braceexpand(pattern.replace("\\", "\\\\")))
    except ValueError:  # braces that do not pair up: a name that has one
        expanded = [pattern]
    found: list[Found] = []
    listed = _Listings() if len(expanded) > FEW_NAMES else None
    for one in expanded:
        one = storage.absolute(one)
        infos = (listed and listed.single(one)) or _list(one)
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
    if not MAGIC.search(pattern):
        try:
            return [storage.stat(pattern)]
        except FileNotFoundError:
            pass  # a folder, or nothing
    return storage.list_files(pattern)


class _Listings:
    """Single files looked up in listings of their folders: thousands of names cost a few requests."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, storage.FileInfo]] = {}

    def single(self, uri: str) -> list[storage.FileInfo]:
        """The file of that name, or nothing."""
        folder = folder_of(uri)
        if MAGIC.search(uri):
            return []
        if folder not in self._folders:
            self._folders[folder] = {info.uri: info for info in storage.list_files(f"{folder}/*")}
        info = self._folders[folder].get(uri)
        return [info] if info else []


def _root(pattern: str) -> str:
    """The folder that a pattern starts from: all of it, or what comes before its first wildcard."""
    match = MAGIC.search(pattern)
    return folder_of(pattern[: match.start()]) if match else pattern


def _is_hidden(uri: str, root: str) -> bool:
    return any(part.startswith(HIDDEN) for part in relative_to(uri, root).split("/")) and uri != root


def _is(uri: str, name: str) -> bool:
    return uri.lower().endswith(ENDINGS[name])


def _sniff(pattern: str, matched: list[Found], formats: tuple[str, ...], kind: Kind) -> str:
    """The format of what a pattern matched, from the names. Raises `UsageError` where that leaves a choice."""
    counts = {name: sum(_is(found.uri, name) for found in matched) for name in formats}
    if len(matched) > 1 and "webdataset" in formats:
        described = _described(matched)
        beside = sum(_is(found.uri, "parquet") and stem(found.uri) in described for found in matched)
        counts["parquet"] -= beside
    if counts.get("files"):
        for found in matched:
            if found.uri.rpartition("/")[2].lower() in METADATA_NAMES:
                counts[found.uri.rpartition(".")[2].lower()] -= 1
    present = {name: count for name, count in counts.items() if count}
    if kind == "codes" and "parquet" in present:  # beside it are the pictures, as in what generate wrote
        return "parquet"
    if len(present) == 1:
        return next(iter(present))
    if not present:
        examples = ", ".join(found.uri.rpartition("/")[2] for found in matched[:3])
        raise UsageError(
            f"{pattern}: no format can be told from the names ({examples}); give --input_format, one of "
            f"{', '.join(formats)}"
        )
    shown = ", ".join(f"{count} of {name}" for name, count in present.items())
    raise UsageError(f"{pattern} has files of several formats ({shown}): give --input_format, or a narrower pattern")


def _described(every: Iterable[Found]) -> set[str]:
    """Names without extension of tars and of folders of images: a Parquet file so called only describes them, as
    img2dataset writes it."""
    stems: set[str] = set()
    for found in every:
        if _is(found.uri, "webdataset"):
            stems.add(stem(found.uri).removesuffix(".tar"))
        elif _is(found.uri, "files"):
            stems.add(folder_of(found.uri))
    return stems

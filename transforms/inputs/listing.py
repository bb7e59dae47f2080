"""Patterns of a user -> files and their format: braces, globs, folders and lists, local or in any store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

from braceexpand import braceexpand

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs import local
from transforms.inputs.file_list import FileList, Found
from transforms.inputs.formats import BY_NAME, formats_of
from transforms.inputs.formats.format import Format, Inputs
from transforms.inputs.formats.tables import METADATA
from transforms.inputs.local import Left
from transforms.inputs.other_outputs import refuse_outputs
from transforms.inputs.passed_over import PassedOver, passed_over_text
from transforms.inputs.request import Kind
from transforms.inputs.sniffing import LooksLikeImage, is_image, leaves_open, may_be_image
from transforms.inputs.uris import folder_of, relative_to, stem
from transforms.ledger.folder import JOB

# What tools make for themselves: not read, and counted by name. So is what begins with a dot.
TOOL_FOLDERS = {JOB, "_temporary", "_delta_log", "_spark_metadata", "__MACOSX", "__pycache__", "@eaDir"}
TOOL_FOLDERS |= {"$RECYCLE.BIN", "System Volume Information"}
TOOL_FILES = {"_SUCCESS", "_metadata", "_common_metadata", "Thumbs.db", "thumbs.db", "desktop.ini"}
TOOL_PREFIXES = ("_committed_", "_started_")
NAMED_HIDDEN = {".DS_Store", ".gitattributes", ".gitignore"}
FEW_NAMES = 8  # of a pattern in braces, which are looked up one by one


@dataclass
class Matched:
    """The files that one pattern matched: by the format whose ending they have, and `others`."""

    pattern: str
    by_format: dict[str, FileList] = field(default_factory=dict)
    others: FileList = field(default_factory=FileList)
    passed: PassedOver = field(default_factory=PassedOver)
    named: FileList = field(default_factory=FileList)  # a single file named outright, of any ending
    sniffed: int = 0  # among those of the format files: told by their bytes alone
    outputs: list[str] = field(default_factory=list)  # output folders of jobs below a folder, with a slash at the end

    def add(self, format: str | None, found: Found) -> None:
        """Adds a file that has the ending of a format, or of none."""
        if format is None:
            self.others.append(found)
        elif format in self.by_format:
            self.by_format[format].append(found)
        else:
            self.by_format[format] = FileList()
            self.by_format[format].append(found)

    def leave(self, left: Left, root: str) -> None:
        """Counts what is left out below a folder or the start of a glob."""
        self.passed.add(left.uri, left.label)
        output = left.uri.removesuffix(f"{JOB}/")
        if output not in (left.uri, root.rstrip("/") + "/"):
            self.outputs.append(output)

    def __iter__(self) -> Iterator[Found]:
        """All files that could be read, by format."""
        for files in (self.named, *self.by_format.values(), self.others):
            yield from files


class Lister:
    """Lists patterns for one job. `own` are files and folders of its output, which are no input."""

    def __init__(self, input_format: str | None, kind: Kind, own: Collection[str]) -> None:
        self.formats = formats_of(kind)
        self._own = frozenset(own)
        self._sniffs = kind == "images" and input_format in (None, "files")
        self._asked = input_format == "files"
        self._endings = {ending: name for name, format in self.formats.items() for ending in format.endings}

    def format_of(self, uri: str) -> str | None:
        """The format that has the ending of a file."""
        name = uri.rpartition("/")[2].lower()
        found = self._endings.get("." + name.rpartition(".")[2])
        if found is None and name.endswith((".gz",)):
            found = next((form for ending, form in self._endings.items() if name.endswith(ending)), None)
        return found

    def leave(self, path: str, is_folder: bool) -> str | None:
        """The label under which a file or folder is left out; None if it is listed."""
        name = path.rpartition("/")[2]
        if path in self._own:
            return f"{name}{'/' * is_folder} of the output"
        if is_folder:
            return f"{name}/" if name.startswith(".") or name in TOOL_FOLDERS else None
        if name in TOOL_FILES or name in NAMED_HIDDEN or name.startswith(TOOL_PREFIXES):
            return name
        return "hidden files" if name.startswith(".") else None

    def _left_of(self, uri: str, root: str) -> Left | None:
        """The outermost folder that is left out with a file of a store, else the file if it is."""
        names = relative_to(uri, root).split("/")
        path = uri[: len(uri) - len("/".join(names))]
        for number, name in enumerate(names):
            is_folder = number < len(names) - 1
            path += name
            label = self.leave(path, is_folder)
            if label is not None:
                return Left(path + "/" * is_folder, label)
            path += "/"
        return None

    def add(self, matched: Matched, pattern: str, root: str) -> int:
        """Adds the files of one folder or glob, in order; returns how many there were."""
        if not storage.is_local(pattern):
            return self._add_of_store(matched, pattern, root)
        number = 0
        for entry in local.walk(pattern, self.leave):
            if isinstance(entry, Left):
                matched.leave(entry, root)
                continue
            number += 1
            name = self.format_of(entry.uri)
            if name is None and self._sniffs and entry.size and may_be_image(entry.uri) and is_image(entry.uri):
                name = "files"
                matched.sniffed += 1
            matched.add(name, Found(entry, root))
        return number

    def _add_of_store(self, matched: Matched, pattern: str, root: str) -> int:
        files = FileList()
        last = ""
        for info in storage.iterate_files(pattern):
            left = self._left_of(info.uri, root)
            if left is None:
                files.append(Found(info, root))
            elif left.uri != last:  # the files of a folder follow one another
                last = left.uri
                matched.leave(left, root)
        if not files.is_sorted:
            files = FileList(sorted(files, key=lambda found: found.uri))
        number = len(files)
        worth = may_be_image if self._asked else leaves_open

        def is_open(found: Found) -> bool:
            sniffs = self._sniffs and found.info.size > 0
            return sniffs and self.format_of(found.uri) is None and worth(found.uri)

        images = LooksLikeImage(lambda: (found.uri for found in files if is_open(found)))
        for found in files.drain():
            name = self.format_of(found.uri)
            if name is None and is_open(found) and found.uri in images:
                name = "files"
                matched.sniffed += 1
            matched.add(name, found)
        return number


def find_inputs(
    patterns: Iterable[str], input_format: str | None, kind: Kind = "images", own: Collection[str] = ()
) -> Inputs:
    """List the inputs that hold rows of a kind: in the order of the patterns, each sorted by name, none twice.

    `own` are files and folders of the job's output, which may lie inside of the input. Raises `UsageError` if a pattern
    matches nothing, its format cannot be inferred, or a folder holds the output of another job.
    """
    formats = formats_of(kind)
    if input_format is not None and input_format not in formats:
        raise UsageError(f"expected one of {', '.join(formats)}, not {input_format}", option="input_format")
    lister = Lister(input_format, kind, own)
    every = [_matches(pattern, lister) for pattern in patterns]
    for matched in every:
        others = [folder for folder in matched.outputs if not any(path.startswith(folder) for path in own)]
        if others and not storage.has_wildcard(matched.pattern):
            refuse_outputs(matched.pattern, others, matched.by_format, input_format)
    found_formats: dict[str, str] = {}  # format -> the pattern that has it
    for matched in every:
        found_formats.setdefault(input_format or _infer(matched, formats, kind), matched.pattern)
    if len(found_formats) > 1:
        shown = "; ".join(f"{pattern} is {name}" for name, pattern in found_formats.items())
        raise UsageError(f"the inputs are of several formats ({shown}): run one job for each, or give input_format")
    chosen = formats[next(iter(found_formats))]
    inputs = _gathered(every, chosen, kind)
    if not inputs.files:
        _refuse_arrow(every)
        raise UsageError(f"no matching files: {' '.join(m.pattern for m in every)} has none of format {chosen.name}")
    return inputs


def _gathered(every: list[Matched], chosen: Format, kind: Kind) -> Inputs:
    """The files of the chosen format, those beside them, and what was passed over; no file twice."""
    files, beside, passed = FileList(), FileList(), PassedOver()
    described: dict[str, Found] = {}
    named = {found.uri for matched in every for found in matched.named}
    known: set[str] = set()
    several = len(every) > 1
    shared = _shared_folders(every)
    unread = _unread_parquet(every, kind) if chosen.name == "parquet" else None

    def add(found: Found, pattern: str, of_format: bool) -> None:
        if folder_of(found.uri) in shared:
            if found.uri in known:
                return
            known.add(found.uri)
        if found.uri in named or (of_format and not (unread and unread(found, pattern))):
            files.append(found)
        elif chosen.name == "files" and METADATA.matches(found.uri):
            described[found.uri] = found
        else:
            beside.append(found)

    for matched in every:
        passed.update(matched.passed)
        if not several and not named and unread is None:  # nothing to sort out: no copy of ten million files
            files = matched.by_format.pop(chosen.name, files)
        for name, group in [("", matched.named), *matched.by_format.items(), ("", matched.others)]:
            for found in group:
                add(found, matched.pattern, name == chosen.name)
    return Inputs(chosen.name, files, beside, tuple(described.values()), passed)


def _shared_folders(every: Iterable[Matched]) -> set[str]:
    """The folders from which several patterns have files, which may be the same ones."""
    shared: set[str] = set()
    known: set[str] = set()
    for matched in every:
        lists = (matched.named, *matched.by_format.values(), matched.others)
        folders = {folder[:-1] for files in lists for folder, _ in files.folders}
        shared |= folders & known
        known |= folders
    return shared


def _unread_parquet(every: list[Matched], kind: Kind) -> Callable[[Found, str], bool]:
    """Whether a Parquet file holds no rows for the job: it describes a tar or a folder of images beside it, or is of
    those that begin with `_`, which readers of Parquet folders leave to the tools that wrote them."""
    several = sum(len(matched.by_format.get("parquet", ())) + len(matched.named) for matched in every) > 1
    tables = _described(found for matched in every for found in matched) if several and kind != "prompts" else set()

    def unread(found: Found, pattern: str) -> bool:
        path = relative_to(found.uri, found.root)
        private = path.startswith("_") or "/_" in path
        return stem(found.uri) in tables or (private and "/_" not in pattern[len(found.root) :])

    return unread


def _matches(pattern: str, lister: Lister) -> Matched:
    """The files that one pattern names. Raises `UsageError` if there are none."""
    try:
        expanded = list(braceexpand(pattern.replace("\\", "\\\\")))
    except ValueError:  # braces that do not pair up: a name that has one
        expanded = [pattern]
    matched = Matched(pattern)

    @cache  # thousands of names cost a few requests
    def listed(folder: str) -> dict[str, storage.FileInfo]:
        return {info.uri: info for info in storage.list_files(f"{folder}/*")}

    for one in map(storage.absolute, expanded):
        by_name = len(expanded) <= FEW_NAMES or storage.has_wildcard(one)
        info = _single(one) if by_name else listed(folder_of(one)).get(one) or _single(one)
        if info is not None:
            found = Found(info, folder_of(one))
            name = lister.format_of(one)
            if len(expanded) == 1:
                matched.named.append(found)
            else:
                matched.add(name, found)
        elif not lister.add(matched, one, _root(one)):
            left = passed_over_text(matched.passed.to_json())
            told = (f" (of {pattern})" if expanded != [pattern] else "") + (f"; passed over: {left}" if left else "")
            raise UsageError(f"no matching files: {one}{told}")
    return matched


def _single(uri: str) -> storage.FileInfo | None:
    """A single file is asked for by its name first: not every store can list (a web server).

    None for a folder, a glob, or nothing. Raises `UsageError` for a FIFO or a device.
    """
    if storage.has_wildcard(uri):
        return None
    if storage.is_local(uri) and os.path.exists(uri) and not os.path.isfile(uri) and not os.path.isdir(uri):
        raise UsageError(f"{uri} is no regular file, but a FIFO, a socket or a device: it is not opened")
    try:
        uri.encode()
        return storage.stat(uri)
    except FileNotFoundError:
        return None
    except UnicodeEncodeError as error:
        raise UsageError(f"{uri!r}: the name of this file is not UTF-8; rename it") from error


def _root(pattern: str) -> str:
    """The folder that a pattern starts from: all of it, or what comes before its first wildcard."""
    before = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return pattern if before == pattern else folder_of(before)


def _infer(matched: Matched, formats: Mapping[str, Format], kind: Kind) -> str:
    """The format of the files that a pattern matched, from their endings. Raises `UsageError` if that leaves a choice.

    Files that describe images do not count beside those: img2dataset's Parquet files, and `METADATA`. Nor do images
    that only their bytes tell, beside files that have the ending of a format.
    """
    if matched.named:
        name = next((name for name, format in formats.items() if format.matches(matched.named[0].uri)), None)
        if name is None and kind == "images" and matched.named[0].info.size and is_image(matched.named[0].uri):
            name = "files"
        counts = {name: 1} if name else {}
    else:
        counts = {name: len(files) for name, files in matched.by_format.items()}
    if kind != "prompts" and counts.get("parquet") and not matched.named:
        described = _described(matched)
        counts["parquet"] -= sum(stem(found.uri) in described for found in matched.by_format["parquet"])
    if counts.get("files"):
        for name in ("csv", "jsonl", "parquet"):
            tables = matched.by_format.get(name, ())
            counts[name] = counts.get(name, 0) - sum(METADATA.matches(found.uri) for found in tables)
    present = {name: count for name, count in counts.items() if count > 0}
    if len(present) > 1 and present.get("files") == matched.sniffed:
        del present["files"]
    if len(present) == 1:
        return next(iter(present))
    if not present:
        _refuse_arrow([matched])
        first = [found.uri for found in islice(matched, 3)]
        examples = ", ".join(uri.rpartition("/")[2] for uri in first)
        if kind == "codes" and any(map(BY_NAME["files"].matches, first)):
            raise UsageError(
                f"{matched.pattern} has images ({examples}) where tables of codes are wanted (parquet): "
                "`vqbeam encode` makes them of images"
            )
        raise UsageError(
            f"{matched.pattern}: no format can be inferred from the file extensions ({examples}); give input_format, "
            f"one of {', '.join(formats)}"
        )
    shown = ", ".join(f"{count} of {name}" for name, count in sorted(present.items()))
    raise UsageError(
        f"{matched.pattern} has files of several formats ({shown}): give input_format, or a narrower pattern"
    )


def _refuse_arrow(every: Iterable[Matched]) -> None:
    """Raises `UsageError` if there are files of Arrow, as `save_to_disk` of Hugging Face datasets writes them."""
    arrow = next((found.uri for matched in every for found in matched if found.uri.lower().endswith(".arrow")), None)
    if arrow is not None:
        folder = folder_of(arrow)
        raise UsageError(
            f"{folder} holds .arrow files, as save_to_disk of Hugging Face datasets writes them, which are not read: "
            f"write them as Parquet, datasets.load_from_disk({folder!r}).to_parquet('data.parquet'), and name that"
        )


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

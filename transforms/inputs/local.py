"""Lists a local folder or glob in the order of the paths. Links are followed, also to folders, and their loops told.

The names of one folder are the most that is held at once, packed.
"""

from __future__ import annotations

import fnmatch
import heapq
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.file_list import Packed

CHUNK = 1 << 16  # names sorted at once
PACKED = 1 << 10  # of them, packed together
ANY = "**"  # of a glob: folders, however deep


@dataclass(frozen=True)
class Left:
    """Something that is no input, and why in one or two words, as it is counted."""

    uri: str
    label: str


Leave = Callable[[str, bool], str | None]
"""From a path and whether it is a folder to the label under which it is left out; None for what is listed."""


def walk(pattern: str, leave: Leave) -> Iterator[storage.FileInfo | Left]:
    """The files below a folder, or those that match a glob (`*`, `?`, `[...]`, `**`), and what is left out there.

    A folder that is left out is not entered. Raises `StorageFailed` if one cannot be read.
    """
    parts: Sequence[str] = (ANY,)
    folder = pattern
    if storage.has_wildcard(pattern):
        fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
        folder, parts = fixed or "/", pattern[len(fixed) :].strip("/").split("/")
    glob = Glob(parts)
    try:
        if not os.path.isdir(folder):
            return
        yield from _walk(folder.rstrip("/"), glob, glob.start, [_identity(folder or "/")], leave)
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r}: the name of this file is not UTF-8; rename it") from error


class Glob:
    """A glob, matched name by name: `start` and what `after` returns are the parts that the next name may match."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.names = [None if part == ANY else re.compile(fnmatch.translate(part)) for part in parts]
        self.dotted = [part.startswith((".", "[.")) for part in parts]
        self.start = self._closed({0})

    def after(self, states: frozenset[int], name: str) -> frozenset[int]:
        found: set[int] = set()
        for at in states:
            if at == len(self.names):
                continue
            pattern = self.names[at]
            if pattern is None:
                found.add(at)
            elif pattern.match(name):
                found.add(at + 1)
        return self._closed(found)

    def matched(self, states: frozenset[int]) -> bool:
        return len(self.names) in states

    def goes_on(self, states: frozenset[int]) -> bool:
        return any(at < len(self.names) for at in states)

    def names_hidden(self, states: frozenset[int]) -> bool:
        """Whether a part that the next name may match begins with a dot: then hidden files are asked for."""
        return any(at < len(self.names) and self.dotted[at] for at in states)

    def _closed(self, states: set[int]) -> frozenset[int]:
        """With the parts after a `**`, which may stand for no folder at all."""
        for at in sorted(states):
            while at < len(self.names) and self.names[at] is None:
                at += 1
                states.add(at)
        return frozenset(states)


def _walk(
    folder: str, glob: Glob, states: frozenset[int], above: list[tuple[int, int]], leave: Leave
) -> Iterator[storage.FileInfo | Left]:
    everything = glob.names == [None]
    for key in _sorted_names(folder or "/"):
        name = key.removesuffix("/")
        path, is_folder = f"{folder}/{name}", key != name
        following = states if everything else glob.after(states, name)
        if not (glob.goes_on(following) if is_folder else glob.matched(following)):
            continue
        label = leave(path, is_folder)
        if label is not None and not (name.startswith(".") and glob.names_hidden(states)):
            yield Left(f"{path}/" if is_folder else path, label)
        elif is_folder:
            identity = _identity(path)
            if identity in above:
                yield Left(path, "links to a folder above")
            else:
                yield from _walk(path, glob, following, [*above, identity], leave)
        else:
            found = _file(path)
            if found is not None:
                yield found


def _file(path: str) -> storage.FileInfo | Left | None:
    """None for a file that is gone meanwhile."""
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            return Left(path, "broken links")
        if isinstance(error, FileNotFoundError):
            return None
        with storage.faults("stat", path):
            raise
    if not stat.S_ISREG(status.st_mode):
        return Left(path, "no regular files")  # a FIFO, a socket or a device
    return storage.FileInfo(path, status.st_size, str(status.st_mtime))


def _identity(folder: str) -> tuple[int, int]:
    with storage.faults("stat", folder, ()):
        status = os.stat(folder)
    return status.st_dev, status.st_ino


def _sorted_names(folder: str) -> Iterator[str]:
    """The names in a folder, those of folders with a slash at the end, in the order of the paths below it.

    Those of a large folder are sorted in runs, packed, and merged.
    """
    runs: list[deque[Packed]] = []
    names: list[str] = []
    for key in _names(folder):
        key.encode()
        names.append(key)
        if len(names) == CHUNK:
            names.sort()
            runs.append(deque(Packed(names[start : start + PACKED]) for start in range(0, CHUNK, PACKED)))
            names.clear()
    names.sort()
    yield from heapq.merge(*map(_unpacked, runs), names) if runs else names


def _unpacked(run: deque[Packed]) -> Iterator[str]:
    while run:
        yield from run.popleft().unpack()


def _names(folder: str) -> Iterator[str]:
    with storage.faults("list", folder):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    yield f"{entry.name}/" if _is_folder(entry) else entry.name
        except FileNotFoundError:
            return  # gone meanwhile


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False

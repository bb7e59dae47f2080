"""Faults at every write of a store: calls with an effect are counted, and one of them fails or is the last."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

STORES = ("local", "other disk", "object store")
LOCAL_CALLS = ("link", "replace", "unlink")
STORE_CALLS = ("put_file", "pipe_file", "rm_file")


class Killed(BaseException):
    """The process is dead: nothing that it does after this takes effect."""


class Writes:
    """Counts the writes below a folder; calls `hook(number, before)` around each, which may raise."""

    def __init__(self, folder: str) -> None:
        self.count = 0
        self.hook: Callable[[int, bool], None] = lambda number, before: None
        self._folder = folder
        self._lock = threading.Lock()

    def around(self, real: Callable[..., Any], target: str, *args: Any, **options: Any) -> Any:
        if not target.startswith(self._folder):
            return real(*args, **options)
        with self._lock:
            number = self.count
            self.count += 1
        self.hook(number, True)
        result = real(*args, **options)
        self.hook(number, False)
        return result


@contextmanager
def counted_writes(store: str, folder: str) -> Iterator[Writes]:
    """Counts links, renames, puts and removals below `folder`, a local path or a path of the object store."""
    writes = Writes(folder)
    with pytest.MonkeyPatch.context() as patch:
        if store == "object store":
            for name in STORE_CALLS:
                patch.setattr(MemoryFileSystem, name, _store_call(writes, getattr(MemoryFileSystem, name), name))
        else:
            for name in LOCAL_CALLS:
                patch.setattr(os, name, _local_call(writes, getattr(os, name), name, store == "other disk"))
        yield writes


def _local_call(writes: Writes, real: Callable[..., Any], name: str, other_disk: bool) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        target = os.fspath(args[-1] if name != "unlink" else args[0])
        if other_disk and name == "link" and not os.fspath(args[0]).startswith(writes._folder):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return writes.around(real, target, *args, **options)

    return call


def _store_call(writes: Writes, real: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        target = str(args[1] if name == "put_file" else args[0])
        return writes.around(real, target, self, *args, **options)

    return call


def kill_at(number: int, before: bool) -> Callable[[int, bool], None]:
    """A hook that ends the process before or after a write; later writes of other threads fail too."""
    dead = threading.Event()

    def hook(now: int, is_before: bool) -> None:
        if (now, is_before) == (number, before):
            dead.set()
        if dead.is_set():
            raise Killed

    return hook


def fail_at(number: int, before: bool, error: Exception) -> Callable[[int, bool], None]:
    """A hook with which one write fails, or takes effect and its answer is lost."""

    def fail() -> None:
        raise error

    return once_at(number, before, fail)


def once_at(number: int, before: bool, act: Callable[[], None]) -> Callable[[int, bool], None]:
    """A hook that does something else in the middle of an attempt."""

    def hook(now: int, is_before: bool) -> None:
        if (now, is_before) == (number, before):
            act()

    return hook

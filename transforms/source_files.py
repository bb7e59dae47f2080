"""Open files whose failures are `StorageFailed`, and objects of a store as files, read by ranges of bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from transforms.errors import StorageFailed

ANSWERS = (FileNotFoundError, FileExistsError)
FREE = 1 << 17  # bytes of a file that may be read ahead in vain
SHARE = 8  # beside these, one of so many
FIRST = 1 << 14  # read ahead behind a jump, and then as much as was read since it
MOST = 4 << 20  # read ahead at once


@contextmanager
def faults(action: str, uri: str, answers: tuple[type[OSError], ...] = ANSWERS) -> Iterator[None]:
    """Re-raises any storage error as `StorageFailed`, except `answers`: by default "not found" and "exists already"."""
    try:
        yield
    except Exception as error:  # stores raise their own types: HttpError, ClientError, RefreshError, ...
        if isinstance(error, (*answers, StorageFailed)):
            raise
        detail = f"{type(error).__name__}: {error}".strip(": ")
        raise StorageFailed(f"cannot {action} {uri}: {detail}") from error


class SourceFile(io.RawIOBase):
    """A readable, seekable file whose failures are `StorageFailed`, so that a parser's own are the data's."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with faults("read", self._uri):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with faults("read", self._uri):
            return self._file.seek(offset, whence)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class RangeReader:
    """An object of a store as a file; `fetch` returns its bytes from one position up to another.

    Nobody says where reading will end, so at most `FREE` bytes of an object and an eighth of those that were used are
    read in vain, unless it is read `whole`. A reader that goes on gets more at a time.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, whole: bool = False) -> None:
        self._fetch = fetch
        self._size = size
        self._whole = whole
        self._position = 0
        self._window, self._start = b"", 0  # what the last request brought, and where it begins
        self._end_used = 0  # in the window, the end of what was used
        self._window_used = 0
        self._used = 0  # of all windows
        self._wasted = 0  # of those before this one
        self._run = 0  # bytes since the last jump

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def read(self, size: int) -> bytes:
        wanted = min(size, max(0, self._size - self._position))
        data = self._from_window(wanted)
        if len(data) < wanted:
            self._next_window(wanted - len(data), jumped=self._position != self._start + len(self._window))
            data += self._from_window(wanted - len(data))
        return data

    def close(self) -> None:
        self._window = b""

    def _from_window(self, wanted: int) -> bytes:
        begin = self._position - self._start
        if not 0 <= begin < len(self._window):
            return b""
        data = self._window[begin : begin + wanted]
        end = begin + len(data)
        new = max(0, end - max(begin, self._end_used))
        self._end_used = max(end, self._end_used)
        self._window_used += new
        self._used += new
        self._run += new
        self._position += len(data)
        return data

    def _next_window(self, missing: int, jumped: bool) -> None:
        """Fetch the bytes from the position on: those that are missing, and some ahead."""
        self._wasted += len(self._window) - self._window_used
        if jumped:
            self._run = 0
        free = FREE + (self._used + missing) // SHARE - self._wasted
        ahead = MOST if self._whole else max(0, min(MOST, free, max(FIRST, self._run)))
        stop = min(self._size, self._position + missing + ahead)
        self._window = self._fetch(self._position, stop)
        self._start, self._end_used, self._window_used = self._position, 0, 0
        if len(self._window) != stop - self._start:
            found = f"{len(self._window):,} of {stop - self._start:,} bytes from byte {self._start:,} on came"
            self._window = b""
            raise EOFError(found)

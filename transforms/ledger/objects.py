"""Whether objects that marks list are there, of their size and readable: at little cost, or in full."""

from __future__ import annotations

import threading
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import amount
from transforms.ledger.folder import ERRORS, FILES_BELOW
from transforms.ledger.marks import REPAIR, Mark
from transforms.ledger.types import StoredObject

TAR_END = bytes(1024)


class QuickLook:
    """Looks at the tables, tars and lists of rejected rows of shards, not at files of images or codes.

    Presence and size are looked at; locally, the end of a file as well: stores hold objects whole. A store is listed,
    once for each folder, and no more than a number is held of each object. Safe to share between threads.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._local = storage.is_local(output)
        self._listed = cache(self._list)
        self._lock = threading.Lock()

    def damage(self, mark: Mark) -> str | None:
        """What is wrong with the objects of a mark, and what to do; None if nothing is seen."""
        for item in mark.objects:
            if not item.path.startswith(FILES_BELOW):
                problem = self._problem(item, mark)
                if problem:
                    return f"{problem}: {REPAIR.format(self._output)}"
        return None

    def _problem(self, item: StoredObject, mark: Mark) -> str | None:
        if not self._local:
            with self._lock:  # listed by one thread, while others wait
                listed = self._listed(item.path.rpartition("/")[0])
            if hash((item.path, item.size)) in listed:
                return None
        return size_problem(self._output, item) or (end_problem(self._output, item, mark) if self._local else None)

    def _list(self, folder: str) -> frozenset[int]:
        found = storage.iterate_files(storage.join(self._output, folder))
        return frozenset(hash((f"{folder}/{info.uri.rpartition('/')[2]}", info.size)) for info in found)


def size_problem(output: str, item: StoredObject) -> str | None:
    """Whether an object is gone or has another size."""
    try:
        size = storage.stat(storage.join(output, item.path)).size
    except FileNotFoundError:
        return f"{item.path} is missing"
    return None if size == item.size else f"{item.path} has {amount(size, 'bytes')}, its mark says {item.size:,}"


def end_problem(output: str, item: StoredObject, mark: Mark) -> str | None:
    """Whether the end of a table or tar, where it is described, is not what the mark says."""
    uri = storage.join(output, item.path)
    if not item.path.endswith(".parquet"):
        ends_well = not item.path.endswith(".tar") or _tail(uri, len(TAR_END)) == TAR_END
        return None if ends_well else f"{item.path} does not end like a tar"
    try:
        with storage.open_read(uri) as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        return f"{item.path} is no readable Parquet file: {error}"
    expected = mark.counts.rows_rejected if item.path.startswith(ERRORS) else mark.counts.rows_written
    return None if rows == expected else f"{item.path} has {amount(rows, 'rows')}, its mark says {expected:,}"


def _tail(uri: str, size: int) -> bytes:
    with storage.open_read(uri) as file:
        file.seek(max(0, file.seek(0, 2) - size))
        return file.read()

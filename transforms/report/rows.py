"""The rows of a stored table or tar, by their positions: a part at a time, or some of them with their images."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import IMAGE, IMAGE_PATH
from transforms.errors import OutputDamaged
from transforms.ledger.folder import is_inside
from transforms.outputs.tar import COUNTS_MEMBER

TAR_PART = 256  # rows of a tar that are read at once


class StoredRows(Protocol):
    """`parts` are ranges of positions that are read at once, in order. `read` has those of the `columns` that there
    are. `take` has all columns of some rows but those that are left out. Both raise `OutputDamaged`."""

    @property
    def parts(self) -> Sequence[range]: ...

    def read(self, part: range, columns: Collection[str]) -> pa.Table: ...

    def take(self, positions: Sequence[int], without: Collection[str] = ()) -> list[dict[str, Any]]: ...

    def image(self, position: int, row: Mapping[str, Any]) -> bytes | None:
        """The image file of a row that `take` gave; None if it has none. Raises `FileNotFoundError`."""
        ...


@contextmanager
def open_rows(output: str, path: str) -> Iterator[StoredRows]:
    """The rows of the main object at `path` in an output folder. Raises `FileNotFoundError` and `OutputDamaged`."""
    try:
        with ExitStack() as stack:
            file = stack.enter_context(storage.open_read(storage.join(output, path)))
            if path.endswith(".tar"):
                yield TarRows(stack.enter_context(tarfile.open(fileobj=file, mode="r:")))
            else:
                yield TableRows(output, pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, tarfile.TarError, OSError) as error:  # failures of the store are `StorageFailed`
        raise OutputDamaged(f"{path} is damaged: {error}") from error


class TableRows:
    """A part is a row group."""

    def __init__(self, output: str, file: pq.ParquetFile) -> None:
        self._output, self._file = output, file
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum([0, *sizes]).tolist()
        self.parts = [range(*pair) for pair in pairwise(ends)]

    def read(self, part: range, columns: Collection[str]) -> pa.Table:
        names = [name for name in self._file.schema_arrow.names if name in columns]
        return self._file.read_row_group(self.parts.index(part), columns=names)

    def take(self, positions: Sequence[int], without: Collection[str] = ()) -> list[dict[str, Any]]:
        names = [name for name in self._file.schema_arrow.names if name not in without]
        found: dict[int, dict[str, Any]] = {}
        for number, part in enumerate(self.parts):
            inside = [position for position in positions if position in part]
            if inside:
                table = self._file.read_row_group(number, columns=names)
                picked = table.take(pa.array([position - part.start for position in inside])).to_pylist()
                found.update(zip(inside, picked, strict=True))
        return [found[position] for position in positions]

    def image(self, position: int, row: Mapping[str, Any]) -> bytes | None:
        path = row.get(IMAGE_PATH)
        if path is not None:
            return storage.read_bytes(storage.join(self._output, path)) if is_inside(path) else None
        cell = row.get(IMAGE)
        return cell["bytes"] if isinstance(cell, dict) else None


class TarRows:
    """Images, each with its row as JSON behind it. The members' headers are read, and of their content what is asked
    for."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        members = [member for member in tar if member.name != COUNTS_MEMBER]
        self._images, self._rows = members[::2], members[1::2]
        rows = len(self._rows)
        self.parts = [range(start, min(start + TAR_PART, rows)) for start in range(0, rows, TAR_PART)]

    def read(self, part: range, columns: Collection[str]) -> pa.Table:
        rows = self.take(part)
        names = sorted({name for row in rows for name in row} & {*columns})
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    def take(self, positions: Sequence[int], without: Collection[str] = ()) -> list[dict[str, Any]]:
        try:
            return [json.loads(self._content(self._rows[position])) for position in positions]
        except ValueError as error:
            raise tarfile.ReadError(f"no JSON: {error}") from error

    def image(self, position: int, row: Mapping[str, Any]) -> bytes | None:
        return self._content(self._images[position])

    def _content(self, member: tarfile.TarInfo) -> bytes:
        file = self._tar.extractfile(member)
        if file is None:
            raise tarfile.ReadError(f"{member.name} has no content")
        return file.read()

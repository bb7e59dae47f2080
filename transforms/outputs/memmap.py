"""The layout of exported tokens in flat files, for loaders that map them into memory.

`codes/00000/codes.bin` holds the codes of a shard, row after row, uint16 or, if the codebook is larger, uint32, both
little-endian, without a header. The table of the shard has all else of the same rows, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from transforms import storage
from transforms.batch import ENCODING, to_rows
from transforms.ledger.folder import CODES
from transforms.ledger.types import ShardCounts, StoredObject
from transforms.outputs.layout import SinkTarget, TokenLayout
from transforms.outputs.npy import CODE_PATH, read_with_paths
from transforms.outputs.table import TABLE, TokenSink


class FlatSink(TokenSink):
    """Puts the file of codes, then the table."""

    def __init__(self, target: SinkTarget, codebook_size: int) -> None:
        super().__init__(target, codebook_size)
        self._kind = flat_dtype(codebook_size)
        self._codes = target.path.with_suffix(".bin")
        self._file = open(self._codes, "wb")  # noqa: SIM115 - closed by finish or abort
        self._uri = storage.join(target.folder.files(CODES, target.shard), "codes.bin")
        self._relative = target.folder.relative(self._uri)

    def write(self, batch: pa.RecordBatch) -> None:
        self._file.write(to_rows(batch.column(ENCODING)).astype(self._kind).tobytes())
        super().write(batch.append_column(CODE_PATH, pa.array([self._relative] * batch.num_rows, pa.string())))

    def finish(self, counts: ShardCounts) -> None:
        self._file.close()
        digest = storage.sha256(str(self._codes))
        if not storage.put_new(self._codes, self._uri) and storage.sha256(self._uri) != digest:  # damaged
            storage.delete(self._uri)
            storage.put_new(self._codes, self._uri)
        self.images.append(StoredObject(self._relative, self._codes.stat().st_size, digest))
        super().finish(counts)

    def abort(self) -> None:
        self._file.close()
        super().abort()


def flat_dtype(codebook_size: int) -> np.dtype:
    """The type of codes in flat files."""
    return np.dtype("<u2" if codebook_size <= 1 << 16 else "<u4")


def _index(shards: Sequence[tuple[str, int, int]], codes_per_image: int, codebook_size: int) -> dict[str, Any]:
    return {
        "dtype": "uint16" if flat_dtype(codebook_size).itemsize == 2 else "uint32",
        "codes_per_row": codes_per_image,
        "codebook_size": codebook_size,
        "rows": sum(rows for _, _, rows in shards),
        "files": [{"path": path, "rows": rows} for path, _, rows in shards],
    }


MAIN = replace(TABLE, read=read_with_paths, files=CODES)
TOKEN_LAYOUT = TokenLayout(MAIN, FlatSink, [(CODE_PATH, pa.string())], _index)

"""The layout of exported tokens in the shards of MosaicML streaming (MDS, version 2), written by ourselves: the package
cannot be installed beside the transformers and numpy that vqbeam needs.

A shard is: the number of samples n, uint32; n + 1 offsets in the file, uint32, of the samples and the end of the last;
JSON that describes the columns; the samples. A sample is the sizes of its columns of no fixed size, uint32, then the
values of all columns. All numbers are little-endian. Behind the last sample, where no reader looks, are our counts and
their length, uint32. `index.json` describes all shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from transforms.batch import CAPTION, ENCODING, KEY, code_dtype, first_caption, to_rows
from transforms.errors import ShardFailed
from transforms.ledger.commit import MainObject
from transforms.ledger.seal import HashedFile, sealed
from transforms.ledger.types import ShardCounts, StoredObject, pack_codes
from transforms.outputs.layout import SinkTarget, TokenLayout
from transforms.outputs.table import output_rows
from transforms.outputs.tar import as_json

MOST_BYTES = (1 << 32) - 1  # that offsets can say


class TooLarge(ShardFailed):
    advised = True


class MdsSink:
    """Holds the samples of a shard, and writes them behind their offsets at the end.

    Columns: `caption`, `encoding`, `key` and, as JSON, all else in `json`.
    """

    def __init__(self, target: SinkTarget, codebook_size: int) -> None:
        self.path = target.path
        self.images: list[StoredObject] = []
        self._target = target
        self._used = np.zeros(codebook_size, bool)
        self._samples: list[bytes] = []
        self._columns = _columns(target.schema.field(ENCODING).type.list_size, codebook_size)
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        codes = to_rows(batch.column(ENCODING))
        self._used[codes.reshape(-1)] = True
        others = output_rows(batch, self._target.schema).drop_columns([ENCODING]).to_pylist()
        for row, other in zip(codes, others, strict=True):
            caption = first_caption(other.pop(CAPTION)).encode()
            key = other.pop(KEY).encode()
            values = (caption, row.astype(row.dtype.newbyteorder("<")).tobytes(), as_json(other), key)
            sizes = [len(value) for value, size in zip(values, self._columns["column_sizes"], strict=True) if not size]
            sample = np.array(sizes, "<u4").tobytes() + b"".join(values)
            self._samples.append(sample)
            self._bytes += len(sample)

    def finish(self, counts: ShardCounts) -> None:
        counts.codes_used = pack_codes(self._used)
        about = json.dumps(self._columns, sort_keys=True).encode()
        first = 4 + 4 * (len(self._samples) + 1) + len(about)
        if first + self._bytes > MOST_BYTES:
            raise TooLarge("a shard of MDS holds at most 4 GiB: choose a smaller rows_per_shard")
        offsets = first + np.cumsum([0, *map(len, self._samples)])
        with open(self.path, "wb") as file:
            hashed = HashedFile(file)
            hashed.write(np.array([len(self._samples), *offsets], "<u4").tobytes())
            hashed.write(about)
            for sample in self._samples:
                hashed.write(sample)
            said = sealed(counts, self._target.job, self._target.shard, hashed).encode()
            file.write(said + np.array([len(said)], "<u4").tobytes())
            file.flush()
            os.fsync(file.fileno())

    def abort(self) -> None:
        self.path.unlink(missing_ok=True)


def _columns(codes_per_image: int, codebook_size: int) -> dict[str, Any]:
    """What shards and the index say of the columns, which are sorted by name."""
    kind = code_dtype(codebook_size)
    return {
        "column_encodings": ["str", f"ndarray:{kind.name}:{codes_per_image}", "json", "str"],
        "column_names": [CAPTION, ENCODING, "json", KEY],
        "column_sizes": [None, kind.itemsize * codes_per_image, None, None],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _index(shards: Sequence[tuple[str, int, int]], codes_per_image: int, codebook_size: int) -> dict[str, Any]:
    columns = _columns(codes_per_image, codebook_size)
    files = [
        {**columns, "raw_data": {"basename": path, "bytes": size, "hashes": {}}, "samples": rows, "zip_data": None}
        for path, size, rows in shards
    ]
    return {"version": 2, "shards": files}


def _read(file: IO[bytes]) -> tuple[str, list[str]]:
    end = file.seek(-4, 2)
    size = int.from_bytes(file.read(4), "little")
    file.seek(end - size)
    text = file.read(size).decode()
    ShardCounts.from_json(text)
    return text, []


TOKEN_LAYOUT = TokenLayout(MainObject("mds", "mds", _read), MdsSink, index=_index)

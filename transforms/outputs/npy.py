"""The layout of exported tokens with a file of codes for each row, as LlamaGen's scripts lay them out.

Row N of shard 00000 is the file `codes/00000/N.npy`, int64 [1, T], and line N of `codes/00000.jsonl`, whose `text`
is the list of its captions: what `extract_codes_t2i.py` writes and `extract_t5_feature.py` reads.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.batch import CAPTION, ENCODING, KEY, to_rows
from transforms.ledger.commit import MainObject
from transforms.ledger.folder import CODES, OutputFolder
from transforms.ledger.types import ShardCounts, StoredObject
from transforms.outputs.layout import SinkTarget, TokenLayout
from transforms.outputs.table import TABLE, TokenSink, read_table

CODE_PATH = "code_path"  # string: the file with the codes of a row, below the output folder


class CodeFileSink(TokenSink):
    """Puts a file for each row and one with the captions, then the table of all but the codes."""

    def __init__(self, target: SinkTarget, codebook_size: int) -> None:
        super().__init__(target, codebook_size)
        self._output = target.folder
        self._folder = target.folder.files(CODES, target.shard)
        self._uploads = target.upload_pool
        self._lines = io.BytesIO()

    def write(self, batch: pa.RecordBatch) -> None:
        first = len(self.images)
        rows = enumerate(to_rows(batch.column(ENCODING)), first)
        self.images.extend(self._uploads.map(self._put_codes, rows))
        keys, captions = (batch.column(name).to_pylist() for name in (KEY, CAPTION))
        for key, caption in zip(keys, captions, strict=True):
            texts = [text or "" for text in caption] if isinstance(caption, list) else [caption or ""]
            line = {"image_path": key, "text": texts or [""]}
            self._lines.write(f"{json.dumps(line)}\n".encode())
        paths = pa.array([item.path for item in self.images[first:]], pa.string())
        super().write(batch.append_column(CODE_PATH, paths))

    def finish(self, counts: ShardCounts) -> None:
        self.images.append(put_file(self._lines.getvalue(), f"{self._folder}.jsonl", self._output))
        super().finish(counts)

    def _put_codes(self, row: tuple[int, np.ndarray]) -> StoredObject:
        number, codes = row
        data = io.BytesIO()
        np.save(data, codes.astype("<i8")[np.newaxis])
        return put_file(data.getvalue(), f"{self._folder}/{number}.npy", self._output, sync=False)


def put_file(data: bytes, uri: str, folder: OutputFolder, *, sync: bool = True) -> StoredObject:
    """Put a file of which every attempt makes the same bytes."""
    digest = hashlib.sha256(data).hexdigest()
    if not storage.put_new(data, uri, sync=sync) and storage.sha256(uri) != digest:  # damaged
        storage.put_bytes(data, uri)
    return StoredObject(folder.relative(uri), len(data), digest)


def read_with_paths(file: IO[bytes]) -> tuple[str, list[str]]:
    """As `read_table`, of a table whose column `CODE_PATH` names its files."""
    text, _ = read_table(file)
    paths = pq.ParquetFile(file).read(columns=[CODE_PATH])[CODE_PATH].to_pylist()
    return text, list(dict.fromkeys(paths))


def _read(file: IO[bytes]) -> tuple[str, list[str]]:
    text, paths = read_with_paths(file)
    return text, [*paths, *(f"{path.rpartition('/')[0]}.jsonl" for path in paths[:1])]


MAIN = MainObject(TABLE.folder, TABLE.suffix, _read, files=CODES)
TOKEN_LAYOUT = TokenLayout(MAIN, CodeFileSink, [(CODE_PATH, pa.string())])

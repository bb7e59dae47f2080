"""Lists of the files of images or codes of a shard, each a Parquet file beside the marks, which so stay small.

A list is named by its content and put before the mark that names it. Marks of earlier versions list the files
themselves.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import OutputFolder, is_inside
from transforms.ledger.marks import REPAIR, Mark
from transforms.ledger.types import StoredObject

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("sha256", pa.binary(32))])


def store_list(folder: OutputFolder, shard: str, files: Sequence[StoredObject]) -> StoredObject:
    """Put the list of the files of a shard."""
    rows = [{"path": item.path, "size": item.size, "sha256": bytes.fromhex(item.sha256)} for item in files]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, compression="zstd")
    data = sink.getvalue()
    content_hash = hashlib.sha256(data).hexdigest()
    uri = folder.file_list(shard, content_hash)
    storage.put_new(data, uri)
    return StoredObject(folder.relative(uri), len(data), content_hash)


def listed_objects(output: str, mark: Mark) -> tuple[StoredObject, ...]:
    """All objects of a mark, its files among them. Raises `OutputDamaged` if their list is gone or damaged."""
    if mark.files is None:
        return mark.objects
    uri = storage.join(output, mark.files.path)
    try:
        table = pq.read_table(io.BytesIO(storage.read_bytes(uri)), schema=SCHEMA).to_pylist()
        found = tuple(StoredObject(row["path"], row["size"], row["sha256"].hex()) for row in table)
        if not all(is_inside(item.path) for item in found):
            raise ValueError("it lists files outside of the folder")
    except FileNotFoundError as error:
        raise OutputDamaged(f"{mark.files.path} is missing: {REPAIR.format(output)}") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        raise OutputDamaged(f"{mark.files.path} is damaged: {error}: {REPAIR.format(output)}") from error
    return (*mark.objects, mark.files, *found)

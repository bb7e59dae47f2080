"""The rejected rows of a job, as the lists beside its marks have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.errors import OutputDamaged
from transforms.ledger.folder import ERRORS, OutputFolder
from transforms.ledger.marks import REPAIR, Mark, read_mark
from transforms.ledger.types import shard_name

ROWS = 1024  # held


def rejected_rows(output: str, shards: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The rejected rows of these shards, in order: the columns of their lists, and `shard`. Those not done have none.

    Raises `OutputDamaged` if a list is gone or cannot be read.
    """
    for shard in shards:
        try:
            mark = read_mark(OutputFolder(output).stats(shard_name(shard)))
        except FileNotFoundError:  # taken back meanwhile
            continue
        for row in rejected_of(output, mark):
            yield {"shard": shard, **row}


def rejected_of(output: str, mark: Mark) -> Iterator[dict[str, Any]]:
    """The rejected rows of one shard. Raises as `rejected_rows`."""
    for item in mark.objects:
        if not item.path.startswith(f"{ERRORS}/"):
            continue
        try:
            with storage.open_read(storage.join(output, item.path)) as file:
                for batch in pq.ParquetFile(file).iter_batches(ROWS):
                    yield from batch.to_pylist()
        except FileNotFoundError as error:
            raise OutputDamaged(f"{item.path} is missing: {REPAIR.format(output)}") from error
        except (pa.ArrowException, OSError) as error:
            raise OutputDamaged(f"{item.path} is damaged: {error}: {REPAIR.format(output)}") from error

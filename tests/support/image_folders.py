"""Output folders of images, written by the sinks of a layout without a job, and counted bytes read of their objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from transforms import storage
from transforms.batch import KEY, PASS_PREFIX, PIXELS, ROW, SAMPLE, fixed_lists
from transforms.ledger.folder import OutputFolder
from transforms.ledger.types import ShardCounts, shard_name
from transforms.outputs.layout import Layout, SinkTarget, find_layout

Rows = Sequence[Mapping[str, Any]]


def write_images(output: str, layout: str, shards: Sequence[Rows], scratch: Path, batch: int = 100) -> Layout:
    """A folder with a shard for each of `shards`, whose rows have a `key`, `pixels`, and more columns if they like."""
    found = find_layout(layout)
    with ThreadPoolExecutor(2) as pool:
        for index, rows in enumerate(shards):
            name = shard_name(index)
            columns = [column for column in rows[0] if column != PIXELS]
            schema = pa.Table.from_pylist([{name: row[name] for name in columns} for row in rows]).schema
            for column, kind in found.columns:
                schema = schema.append(pa.field(column, kind))
            path = scratch / f"{name}.{found.main.suffix}"
            target = SinkTarget(path, schema, pool, pool, OutputFolder(output), name)
            sink = found.sink(target, "png", None)
            for start in range(0, len(rows), batch):
                sink.write(_batch(rows[start : start + batch], start, schema))
            sink.finish(ShardCounts(rows_written=len(rows)))
            storage.put_new(path, storage.join(output, found.main.folder, path.name))
    return found


def _batch(rows: Rows, first: int, schema: pa.Schema) -> pa.RecordBatch:
    own = (KEY, SAMPLE)
    columns = {
        (name if name in own else PASS_PREFIX + name): pa.array([row[name] for row in rows], schema.field(name).type)
        for name in rows[0]
        if name != PIXELS
    }
    columns[ROW] = pa.array(range(first, first + len(rows)))
    columns[PIXELS] = fixed_lists(np.stack([row[PIXELS] for row in rows]))
    return pa.RecordBatch.from_pydict(columns)


def grey(level: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def noise(seed: int, side: int) -> np.ndarray:
    """An image that does not compress."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The URIs that are opened or read meanwhile."""
    found: list[str] = []

    def noted(call: Any) -> Any:
        def wrapper(uri: str, *args: Any, **options: Any) -> Any:
            found.append(uri)
            return call(uri, *args, **options)

        return wrapper

    with (
        mock.patch.object(storage, "open_read", noted(storage.open_read)),
        mock.patch.object(storage, "read_bytes", noted(storage.read_bytes)),
    ):
        yield found

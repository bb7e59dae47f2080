"""Output folders made by hand for tests of reports: a plan, marks and tables of tokens, of any number of shards."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.inputs.request import InputSchema
from transforms.ledger.plan import Plan, store_segment
from transforms.ledger.tables import ERROR_SCHEMA
from transforms.ledger.types import Shard, ShardCounts, Slice, Source, pack_codes, shard_name

CODEBOOK = 32
MADE = {"command": "encode", "model": "made up", "model_source": "/nowhere/model", "codebook_size": CODEBOOK}
BEGAN = 1_700_000_000.0


def tokens(shard: int, rows: int, group_rows: int | None = None) -> bytes:
    """A table of tokens: codes of four, keys and captions that name the row, images of 20 to 60 pixels."""
    numbers = np.arange(rows) + shard * rows
    codes = pa.FixedSizeListArray.from_arrays(
        pa.array((numbers[:, None] * 4 + np.arange(4)).reshape(-1) % 8, pa.uint16()), 4
    )
    table = pa.table(
        {
            "key": [f"k{number}" for number in numbers],
            "caption": ["" if number % 10 == 9 else f"a thing numbered {number}" for number in numbers],
            "encoding": codes,
            "original_width": pa.array(20 + 10 * (numbers % 5), pa.int32()),
            "original_height": pa.array(np.full(rows, 40), pa.int32()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"vqbeam": json.dumps(MADE)}), out, row_group_size=group_rows or rows)
    return out.getvalue()


def rejected(rows: Sequence[Mapping[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], ERROR_SCHEMA), out)
    return out.getvalue()


def write_folder(
    folder: Path,
    shards: int,
    rows: int,
    *,
    bad: Mapping[int, Sequence[Mapping[str, str]]] | None = None,
    filtered: int = 0,
    group_rows: int | None = None,
) -> Path:
    """An output folder of encode with so many rows in each shard, done one after another at ten seconds each. `bad` are
    the rejected rows of some shards. Each shard has filtered so many rows."""
    bad = bad or {}
    source = Source("/nowhere/images.parquet", "parquet", 1, "1", rows=shards * rows)
    slices = [Shard(i, (Slice(source, i * rows, (i + 1) * rows),)) for i in range(shards)]
    schema = InputSchema(kind="images", image="image", caption="caption", key="key").to_json()
    plan = Plan("encode", {"command": "encode", "dtype": "float32"}, {"device": "cpu", "model": "made up"}, schema)
    store_segment(str(folder), plan, slices)
    for name in ("data", "_vqbeam/stats", "_vqbeam/errors"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    used = np.zeros(CODEBOOK, bool)
    used[:8] = True
    for shard in range(shards):
        name = shard_name(shard)
        objects = {f"data/{name}.parquet": tokens(shard, rows, group_rows)}
        counts = ShardCounts(rows + filtered, rows, 0, filtered, codes_used=pack_codes(used))
        counts.filters = {"min_image_size": filtered} if filtered else {}
        for row in bad.get(shard, ()):
            counts.rows_read += 1
            counts.reject(row["error"])
        if shard in bad:
            objects[f"_vqbeam/errors/{name}.0123456789abcdef.parquet"] = rejected(bad[shard])
        for path, data in objects.items():
            (folder / path).write_bytes(data)
        mark: dict[str, Any] = {
            "shard": shard,
            **asdict(counts),
            "missing_captions": rows // 10,
            "seconds": 10.0,
            "timings": {"read": 1.0, "decode": 2.0, "model": 8.0, "write": 0.5},
            "objects": [{"path": path, "size": len(data), "sha256": ""} for path, data in objects.items()],
            "bytes": sum(map(len, objects.values())),
        }
        path = folder / "_vqbeam" / "stats" / f"{name}.json"
        path.write_text(json.dumps(mark))
        os.utime(path, (BEGAN + 10 * (shard + 1), BEGAN + 10 * (shard + 1)))
    (folder / "_SUCCESS").write_bytes(b"")
    return folder

"""Plans and reads inputs for tests: the rows of a dataset as dicts, whole or cut into shards."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from transforms.batch import PASS_PREFIX
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import InputPlan, make_shards, plan_sources
from transforms.inputs.request import InputRequest
from transforms.inputs.rows import batch_schema

WHOLE = 1_000_000


def plan(*patterns: Any, rows_per_shard: int = WHOLE, **request: Any) -> InputPlan:
    return plan_sources(InputRequest(tuple(str(pattern) for pattern in patterns), **request), rows_per_shard)


def read_plan(
    planned: InputPlan,
    rows_per_shard: int = WHOLE,
    max_bytes: int = MAX_IMAGE_BYTES,
    notices: Counter[str] | None = None,
) -> list[dict[str, Any]]:
    """Every row, in order; each batch is checked to have the one schema of the job."""
    rows: list[dict[str, Any]] = []
    for shard in make_shards(planned.pieces, rows_per_shard):
        for batch in read_slices(shard.slices, planned.schema, max_bytes, notices):
            assert batch.schema.equals(batch_schema(planned.schema))
            batch.validate(full=True)
            rows += batch.to_pylist()
    return rows


def read(*patterns: Any, rows_per_shard: int = WHOLE, **request: Any) -> list[dict[str, Any]]:
    return read_plan(plan(*patterns, rows_per_shard=rows_per_shard, **request), rows_per_shard)


def passthrough(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of `batch` that pass through, under their names in the output."""
    names = [name for name in batch.schema.names if name.startswith(PASS_PREFIX)]
    return batch.select(names).rename_columns([name.removeprefix(PASS_PREFIX) for name in names])


def errors(rows: list[dict[str, Any]]) -> list[str | None]:
    return [row["error_code"] for row in rows]


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]

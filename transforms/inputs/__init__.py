"""Where rows come from: plan the inputs, cut them into shards, read a shard's rows as batches.

plan = plan_sources(InputRequest(patterns=("gs://bucket/data/*.tar",)), rows_per_shard=10_000)
shards = make_shards(plan.pieces, rows_per_shard=10_000)
for batch in read_slices(shards[0].slices, plan.schema):
    ...
"""

from transforms.inputs.fetch import FetchOptions, fetch_image
from transforms.inputs.formats import formats_of
from transforms.inputs.plan import InputPlan, count_rows, make_shards, plan_sources
from transforms.inputs.read import read_slices
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.rows import batch_schema, passthrough

__all__ = [
    "FetchOptions",
    "InputPlan",
    "InputRequest",
    "InputSchema",
    "batch_schema",
    "count_rows",
    "fetch_image",
    "formats_of",
    "make_shards",
    "passthrough",
    "plan_sources",
    "read_slices",
]

"""Where rows come from: plan the inputs, cut them into shards, read a shard's rows as canonical batches.

plan = plan_sources(InputRequest(patterns=("gs://bucket/data/*.tar",)), rows_per_shard=10_000)
shards = make_shards(plan.pieces, rows_per_shard=10_000)
for batch in read_slices(shards[0].slices, plan.schema):
    ...
"""

from transforms.inputs.fetch import FetchOptions, fetch_image
from transforms.inputs.listing import FORMATS, PROMPT_FORMATS
from transforms.inputs.plan import InputPlan, Piece, plan_sources
from transforms.inputs.read import read_slices
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.rows import batch_schema, passthrough
from transforms.inputs.splitting import make_shards

__all__ = [
    "FORMATS",
    "PROMPT_FORMATS",
    "FetchOptions",
    "InputPlan",
    "InputRequest",
    "InputSchema",
    "Piece",
    "batch_schema",
    "fetch_image",
    "make_shards",
    "passthrough",
    "plan_sources",
    "read_slices",
]

"""Inputs -> slices, shards and one schema, before anything runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from transforms import storage
from transforms.inputs.formats import BY_NAME
from transforms.inputs.formats.format import Inputs, Piece, PlanTask
from transforms.inputs.listing import find_inputs
from transforms.inputs.request import InputRequest, InputSchema
from transforms.ledger.types import INLINE, Shard, Slice, Source


@dataclass(frozen=True)
class InputPlan:
    """What the inputs are: `pieces` in the order of the rows, the `schema` of all of them, and their `format`.

    `listed` are all files of the inputs as they are now, also those of a plan that is extended.
    """

    format: str
    pieces: tuple[Piece, ...]
    schema: InputSchema
    listed: tuple[storage.FileInfo, ...] = ()

    @property
    def sources(self) -> list[Source]:
        """The files that rows come from, each once, in order."""
        return list(dict.fromkeys(piece.slice.source for piece in self.pieces))


def plan_sources(
    request: InputRequest,
    rows_per_shard: int,
    *,
    schema: InputSchema | None = None,
    known: Collection[str] = (),
    inputs: Inputs | None = None,
) -> InputPlan:
    """List the inputs unless `inputs` are given, fix the schema, and cut what is larger than a shard.

    To extend a plan, give its `schema` (kept as it is) and the URIs of its sources as `known` (left out).
    Raises `UsageError` and `ShardFailed`.
    """
    if request.prompts:
        inputs = Inputs(INLINE, (), ())
    inputs = inputs or find_inputs(request.patterns, request.input_format, request.kind)
    task = PlanTask(inputs, request, rows_per_shard, schema, frozenset(known))
    pieces, found_schema = BY_NAME[inputs.format].plan(task)
    listed = tuple(found.info for found in (*inputs.files, *inputs.beside))
    return InputPlan(inputs.format, tuple(pieces), found_schema, listed)


def make_shards(pieces: Iterable[Piece], rows_per_shard: int, first_index: int = 0) -> list[Shard]:
    """Pieces packed in order into shards of at most `rows_per_shard` rows, numbered from `first_index`; none is cut."""
    shards: list[Shard] = []
    gathered: list[Slice] = []
    rows = 0
    for piece in pieces:
        if gathered and rows + piece.rows > rows_per_shard:
            shards.append(Shard(first_index + len(shards), tuple(gathered)))
            gathered, rows = [], 0
        gathered.append(piece.slice)
        rows += piece.rows
    if gathered:
        shards.append(Shard(first_index + len(shards), tuple(gathered)))
    return shards

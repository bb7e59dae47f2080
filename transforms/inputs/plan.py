"""Inputs -> slices, shards and one schema, before anything runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats import BY_NAME
from transforms.inputs.formats.format import Inputs, Piece, PlanTask
from transforms.inputs.listing import find_inputs
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.uris import WEB_SCHEMES, canonical_scheme, scheme_of
from transforms.ledger.types import INLINE, Shard, Slice


@dataclass(frozen=True)
class InputPlan:
    """`pieces` in the order of the rows, the `schema` of all of them, and the `inputs` as they are now.

    If a plan is extended, `inputs` have all its files, and `pieces` are those of new ones.
    """

    inputs: Inputs
    pieces: tuple[Piece, ...]
    schema: InputSchema


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
    first = inputs.files[0].uri if inputs.files else ""
    schemes = tuple(map(canonical_scheme, request.uri_schemes or ())) or (scheme_of(first),)
    for scheme in schemes:
        _check_scheme(scheme)
    request = replace(request, uri_schemes=schemes)
    task = PlanTask(inputs, request, rows_per_shard, schema, frozenset(known))
    pieces, found_schema = BY_NAME[inputs.format].plan(task)
    return InputPlan(inputs, tuple(pieces), found_schema)


def _check_scheme(scheme: str) -> None:
    """Raises `UsageError` for a scheme that no installed package opens."""
    if scheme in WEB_SCHEMES:
        return
    try:
        storage.file_system_class(scheme)
    except UsageError as error:
        raise UsageError(str(error), option="uri_schemes") from error


def make_shards(pieces: Iterable[Piece], rows_per_shard: int, first_index: int = 0) -> list[Shard]:
    """Pieces packed in order into shards of at most `rows_per_shard` rows, numbered from `first_index`; none is cut."""
    packed: list[list[Slice]] = []
    rows = 0
    for piece in pieces:
        if not packed or rows + piece.rows > rows_per_shard:
            packed.append([])
            rows = 0
        packed[-1].append(piece.slice)
        rows += piece.rows
    return [Shard(index, tuple(slices)) for index, slices in enumerate(packed, first_index)]

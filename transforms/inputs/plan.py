"""Inputs -> slices, shards and one schema, before anything runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats import BY_NAME
from transforms.inputs.formats.files import Pieces
from transforms.inputs.formats.format import Inputs, Piece, PlanTask
from transforms.inputs.formats.tables import DELIMITERS
from transforms.inputs.listing import find_inputs
from transforms.inputs.passed_over import PassedOver
from transforms.inputs.request import InputRequest, InputSchema
from transforms.inputs.uris import WEB_SCHEMES, canonical_scheme, scheme_of
from transforms.ledger.types import INLINE, Shard
from transforms.sequences import MadeOnDemand

MOST_PIECES = 1 << 16  # of a shard, which a worker holds as objects


@dataclass(frozen=True)
class InputPlan:
    """`pieces` in the order of the rows, the `schema` of all of them, and the `inputs` as they are now; files of these
    that are not read are `passed`.

    If a plan is extended, `inputs` have all its files, and `pieces` are those of new ones.
    """

    inputs: Inputs
    pieces: Sequence[Piece]
    schema: InputSchema
    passed: PassedOver


def plan_sources(
    request: InputRequest,
    rows_per_shard: int,
    *,
    schema: InputSchema | None = None,
    known: Container[str] = (),
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
    if schema is None and request.quoting in ("csv", "none") and inputs.format not in DELIMITERS:
        raise UsageError(f"the input is {inputs.format}; it is for {' and '.join(DELIMITERS)}", option="quoting")
    schemes = tuple(map(canonical_scheme, request.uri_schemes or ())) or (scheme_of(first),)
    for scheme in schemes:
        _check_scheme(scheme)
    request = replace(request, uri_schemes=schemes)
    task = PlanTask(inputs, request, rows_per_shard, schema, known)
    format = BY_NAME[inputs.format]
    pieces, found_schema = format.plan(task)
    passed = PassedOver()
    passed.update(inputs.passed)
    for found in inputs.beside if format.unread is None else format.unread(inputs, found_schema):
        passed.add(found.uri)
    return InputPlan(inputs, pieces, found_schema, passed)


def _check_scheme(scheme: str) -> None:
    """Raises `UsageError` for a scheme that no installed package opens."""
    if scheme in WEB_SCHEMES:
        return
    try:
        storage.file_system_class(scheme)
    except UsageError as error:
        raise UsageError(str(error), option="uri_schemes") from error


class PlannedShards(MadeOnDemand[Shard]):
    """Pieces packed in order into shards, which are made when they are asked for: there may be millions of pieces."""

    def __init__(self, pieces: Sequence[Piece], rows_per_shard: int, first_index: int = 0) -> None:
        self._pieces = pieces
        self._first = first_index
        self._cuts: list[int] = []  # the piece that each shard begins with
        rows = 0
        for number, count in enumerate(self._counts()):
            if not self._cuts or rows + count > rows_per_shard or number - self._cuts[-1] >= MOST_PIECES:
                self._cuts.append(number)
                rows = 0
            rows += count

    def __len__(self) -> int:
        return len(self._cuts)

    @property
    def rows(self) -> int:
        """Of all pieces: counted, or estimated if only reading them would tell."""
        return sum(self._counts())

    def _counts(self) -> Iterable[int]:
        return self._pieces.row_counts() if isinstance(self._pieces, Pieces) else (piece.rows for piece in self._pieces)

    def make(self, number: int) -> Shard:
        stop = self._cuts[number + 1] if number + 1 < len(self) else len(self._pieces)
        slices = tuple(piece.slice for piece in self._pieces[self._cuts[number] : stop])
        return Shard(self._first + number, slices)


def make_shards(pieces: Sequence[Piece], rows_per_shard: int, first_index: int = 0) -> Sequence[Shard]:
    """Pieces packed in order into shards of at most `rows_per_shard` rows and `MOST_PIECES` pieces, numbered from
    `first_index`; none is cut."""
    return PlannedShards(pieces, rows_per_shard, first_index)

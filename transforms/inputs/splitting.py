"""Slices -> shards: small ones packed together, in order, up to the rows that a shard aims at."""

from __future__ import annotations

from collections.abc import Iterable

from transforms.inputs.plan import Piece
from transforms.ledger.types import Shard, Slice


def make_shards(pieces: Iterable[Piece], rows_per_shard: int, first_index: int = 0) -> list[Shard]:
    """Shards numbered from `first_index`; deterministic in the order of `pieces`. No piece is cut here."""
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

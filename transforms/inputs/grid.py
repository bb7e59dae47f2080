"""Whether codes in the input have the grid of the model that is to decode them, told from the first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import pyarrow as pa
import pyarrow.types as pt

from models.image_tokenizer import TokenizerSpec
from transforms.batch import CODES, GRID_H, GRID_W
from transforms.errors import UsageError, amount
from transforms.inputs.formats import read_slices
from transforms.inputs.formats.format import PEEKED_FILES, Piece
from transforms.inputs.request import InputSchema
from transforms.ledger.types import Slice


def check_grid(pieces: Iterable[Piece], schema: InputSchema, spec: TokenizerSpec) -> None:
    """Look at the first rows that have codes, of at most `PEEKED_FILES` pieces.

    Raises `UsageError` if none of them fills the grid of `spec`: they are another model's, and each would be rejected.
    Single rows of another length are faults of the data, which workers reject.
    """
    if spec.any_grid and has_grids(schema.passthrough):
        return
    for piece in islice(pieces, PEEKED_FILES):
        found = _lengths(piece.slice, schema)
        if spec.codes_per_image in found:
            return
        if found:
            ((length, _),) = found.most_common(1)
            raise UsageError(
                f"{piece.slice.source.uri}: its rows have {amount(length, 'codes')}, and the grid of this model has "
                f"{spec.codes_per_image:,}: name the model that made them",
                option="model",
            )


def has_grids(passthrough: pa.Schema) -> bool:
    """Whether tables say the grid of each row, as `vqbeam encode` writes those that differ."""
    return {GRID_H, GRID_W} <= {column.name for column in passthrough if pt.is_integer(column.type)}


def _lengths(part: Slice, schema: InputSchema) -> Counter[int]:
    """How many codes the rows of the first batch have; nulls and rejected rows are left out."""
    found: Counter[int] = Counter()
    for batch in islice(read_slices([part], schema), 1):
        found.update(len(cell.values) for cell in batch.column(CODES) if cell.is_valid)
    return found

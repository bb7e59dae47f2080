"""Arrow columns of one file as the types that the plan fixed for the job, where that loses nothing."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from transforms.inputs.columns import is_binary, is_list, is_string, plain


def castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of `found` can be kept as `wanted`; integers may still turn out to be too large."""
    found = plain(found)
    if found == wanted or pt.is_null(found):
        return True
    if is_list(found) and is_list(wanted):
        return castable(found.value_type, wanted.value_type)
    if pt.is_floating(found) and pt.is_floating(wanted):
        return bool(found.bit_width <= wanted.bit_width)
    return (
        (pt.is_integer(found) and (pt.is_integer(wanted) or pt.is_float64(wanted)))
        or (is_string(found) and is_string(wanted))
        or (is_binary(found) and (pt.is_binary(wanted) or pt.is_large_binary(wanted)))
        or (pt.is_timestamp(found) and pt.is_timestamp(wanted) and found.tz == wanted.tz)
    )


def cast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """`column` as `wanted`, and the rows whose value does not fit; those are null in what is returned.

    Call it for `castable` types only.
    """
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == wanted:
        return column, []
    try:
        return column.cast(wanted), []
    except pa.ArrowInvalid:
        pieces: list[pa.Array] = []
        misfits: list[int] = []
        for row in range(len(column)):
            try:
                pieces.append(column.take(pa.array([row])).cast(wanted))  # a slice would bring all nested values
            except pa.ArrowInvalid:
                pieces.append(pa.nulls(1, wanted))
                misfits.append(row)
        return pa.concat_arrays(pieces), misfits


def without_bad_text(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
    """`batch` with nulls for strings that are no UTF-8 (Parquet's readers do not look), and by row which column had
    one."""
    try:
        batch.validate(full=True)
        return batch, {}
    except pa.ArrowInvalid:
        columns = list(batch.columns)
    bad_rows: dict[int, str] = {}
    for index, name in enumerate(batch.schema.names):
        good = [_is_valid(columns[index].take(pa.array([row]))) for row in range(batch.num_rows)]
        if not all(good):
            columns[index] = pc.if_else(pa.array(good), columns[index], pa.scalar(None, columns[index].type))
            bad_rows |= {row: name for row, fine in enumerate(good) if not fine}
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names), bad_rows


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True

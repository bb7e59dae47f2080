"""Cells of Arrow columns -> cells of a batch: cast to the planned types if that loses nothing, else their row is bad.

`errors` are the errors of the rows of a batch, by row: the functions fill in what they find.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from transforms.errors import RowRejected, amount
from transforms.inputs.column_types import is_binary, is_image_struct, is_list, is_string, plain
from transforms.inputs.embedded import embedded_image
from transforms.inputs.options import arrow_type, option_value
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import prompt_key, too_long
from transforms.inputs.uris import resolve
from transforms.inputs.values import caption_of
from transforms.ledger.types import Source

Errors = list[tuple[str, str] | None]


def castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of `found` can be kept as `wanted`; integers may still turn out to be too large, bytes to be
    no UTF-8."""
    if found == wanted or pt.is_null(found):
        return True
    found = plain(found)
    if found == wanted:
        return True
    if is_list(found) and is_list(wanted):
        return castable(found.value_type, wanted.value_type)
    if pt.is_floating(found) and pt.is_floating(wanted):
        return bool(found.bit_width <= wanted.bit_width)
    return (
        (pt.is_integer(found) and (pt.is_integer(wanted) or pt.is_float64(wanted)))
        or ((is_string(found) or is_binary(found)) and is_string(wanted))
        or (is_binary(found) and (pt.is_binary(wanted) or pt.is_large_binary(wanted)))
        or (pt.is_timestamp(found) and pt.is_timestamp(wanted) and found.tz == wanted.tz)
    )


def may_be_whole(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column of integers meets floats: those that are whole can be kept."""
    return pt.is_floating(plain(found)) and pt.is_integer(wanted)


def decoded(column: pa.Array) -> pa.Array:
    """`column` as its `plain` type."""
    kind = plain(column.type)
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def cast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """`column` as `wanted`, and the rows whose value does not fit; those become null.

    Call it for `castable` types only.
    """
    if column.type == wanted:
        return column, []
    column = decoded(column)
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


def null_where(condition: pa.BooleanArray, column: pa.Array) -> pa.Array:
    """`column` with nulls where `condition` is true or null.

    It takes rows: before pyarrow 24, `if_else` of a null and a slice of strings makes offsets that lead past its data.
    """
    rows = pa.array(range(len(column)), pa.int64())
    return column.take(pc.if_else(condition, pa.scalar(None, pa.int64()), rows))


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
            columns[index] = null_where(pc.invert(pa.array(good)), columns[index])
            bad_rows |= {row: name for row, fine in enumerate(good) if not fine}
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names), bad_rows


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def image_cells(column: pa.Array, schema: InputSchema, table: Source, errors: Errors) -> dict[str, pa.Array]:
    """The columns `image` and `image_uri`, from bytes, paths or base64, or both; paths count from the folder of
    `table`."""
    column = decoded(column)
    references: list[str | None] = [None] * len(column)
    image = pa.nulls(len(column), pa.large_binary())
    if is_image_struct(column.type):
        image = column.flatten()[column.type.get_field_index("bytes")].cast(pa.large_binary())
        path = column.type.get_field_index("path")
        if path >= 0:
            references = column.flatten()[path].to_pylist()
    elif is_binary(column.type):
        image = column.cast(pa.large_binary())
    elif is_string(column.type):
        references = column.to_pylist()
    present = image.is_valid().to_pylist()
    uris: list[str | None] = [None] * len(column)
    embedded: dict[int, bytes] = {}
    for row, reference in enumerate(references):
        if present[row] or errors[row]:
            continue
        try:
            if reference is None or not reference.strip():
                raise RowRejected("missing_image", f"the cell of {schema.image} is null")
            data = embedded_image(reference)
            if data is not None:
                embedded[row] = data
            else:
                uris[row] = resolve(reference, table.uri, table.root, schema.uri_schemes)
        except RowRejected as rejected:
            errors[row] = (rejected.code, rejected.message)
    if embedded:
        given = image.to_pylist() if any(present) else [None] * len(column)
        image = pa.array([embedded.get(row, data) for row, data in enumerate(given)], pa.large_binary())
    return {"image": image, "image_uri": pa.array(uris, pa.string())}


def code_cells(column: pa.Array, name: str, errors: Errors) -> dict[str, pa.Array]:
    """The column `codes`, from lists of integers or bytes; `name` is that of `column`, for messages."""
    kind = pa.list_(pa.int64())
    column = decoded(column)
    if is_list(column.type):
        codes, misfits = cast(column, kind)
        for row in misfits:
            errors[row] = ("code_out_of_range", "a code does not fit 64 bits")
    elif is_binary(column.type):
        codes = pa.array([_from_int16(value, row, errors) for row, value in enumerate(column.to_pylist())], kind)
    else:
        codes = pa.nulls(len(column), kind)
    if codes.null_count or codes.values.null_count:
        for row, cell in enumerate(codes.to_pylist()):
            if (cell is None or None in cell) and errors[row] is None:
                what = "the cell" if cell is None else "a code in the cell"
                errors[row] = ("missing_codes", f"{what} of {name} is null")
    return {"codes": codes}


def _from_int16(value: bytes | None, row: int, errors: Errors) -> list[int] | None:
    """Codes as LAION stores them: the bytes of little-endian 16-bit integers."""
    if value is None:
        return None
    if len(value) % 2:
        errors[row] = ("wrong_code_count", f"{amount(len(value), 'bytes')}: no whole number of 16-bit codes")
        return None
    codes: list[int] = np.frombuffer(value, dtype="<i2").astype(np.int64).tolist()
    return codes


def option_cells(batch: pa.RecordBatch, names: tuple[str, ...], errors: Errors) -> dict[str, pa.Array]:
    """Seed, number of images and so on, from the columns `names`; a value that cannot be used becomes null."""
    columns: dict[str, pa.Array] = {}
    for name in names:
        values: list[int | float | None] = []
        for row, value in enumerate(batch.column(name).to_pylist()):
            try:
                values.append(option_value(name, value))
            except RowRejected as rejected:
                values.append(None)
                errors[row] = errors[row] or (rejected.code, rejected.message)
        columns[name.lower()] = pa.array(values, arrow_type(name.lower()))
    return columns


def numbered_captions(column: pa.Array, schema: InputSchema, errors: Errors) -> pa.Array:
    """The captions of a column of numbers: the digits of those that are whole."""
    captions: list[str | list[str] | None] = [None] * len(column)
    for row, value in enumerate(column.to_pylist()):
        try:
            captions[row] = caption_of(value, schema.caption_is_list)
        except RowRejected as rejected:
            errors[row] = errors[row] or (rejected.code, rejected.message)
    return pa.array(captions, schema.caption_type)


def prompt_cells(captions: pa.Array, keys: pa.Array, schema: InputSchema, errors: Errors) -> dict[str, pa.Array]:
    """The columns `caption`, null for bad rows, and `key`, made from the prompt if the user asked for that."""
    prompts, own_keys = captions.to_pylist(), keys.to_pylist()
    for row, prompt in enumerate(prompts):
        if prompt is None:
            continue
        errors[row] = errors[row] or too_long(len(prompt.encode()))
        if schema.key_from == "prompt":
            own_keys[row] = prompt_key(prompt)
        prompts[row] = None if errors[row] else prompt
    return {"caption": pa.array(prompts, pa.string()), "key": pa.array(own_keys, pa.string())}

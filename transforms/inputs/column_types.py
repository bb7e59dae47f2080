"""What the types of columns can hold: images, captions, keys, codes; and dictionaries and views as what they show."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt


def is_binary(kind: pa.DataType) -> bool:
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind)


def is_string(kind: pa.DataType) -> bool:
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def is_number(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or pt.is_floating(kind)


def is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def is_image_struct(kind: pa.DataType) -> bool:
    """The `{bytes, path}` of Hugging Face datasets."""
    return pt.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)


def holds_image(kind: pa.DataType) -> bool:
    return is_binary(kind) or is_image_struct(kind)


def is_image_or_path(kind: pa.DataType) -> bool:
    return holds_image(kind) or is_string(kind)


def holds_caption(kind: pa.DataType) -> bool:
    return is_string(kind) or (is_list(kind) and is_string(kind.value_type))


def holds_number(kind: pa.DataType) -> bool:
    """Also text: csv has nothing else."""
    return is_number(kind) or pt.is_decimal(kind) or is_string(kind) or pt.is_null(kind)


def holds_key(kind: pa.DataType) -> bool:
    return is_string(kind) or pt.is_integer(kind)


def may_hold_caption(kind: pa.DataType) -> bool:
    """Writers that mark no string as UTF-8 make binary columns, and a column that is all null has no type."""
    return is_binary(kind) or pt.is_null(kind) or (is_list(kind) and is_binary(kind.value_type))


def may_be_called_caption(kind: pa.DataType) -> bool:
    """Whole numbers, such as classes, are captions if that is what their column is called."""
    return may_hold_caption(kind) or is_number(kind)


def may_hold_key(kind: pa.DataType) -> bool:
    """Gaps in a column make floats of integers."""
    return is_binary(kind) or pt.is_null(kind) or pt.is_floating(kind)


def holds_codes(kind: pa.DataType) -> bool:
    return (is_list(kind) and pt.is_integer(kind.value_type)) or is_binary(kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary type as the type of its values, a view as what it shows, in lists too; others as they are."""
    if pt.is_dictionary(kind):
        return plain(kind.value_type)
    if pt.is_list(kind) and plain(kind.value_type) != kind.value_type:
        return pa.list_(plain(kind.value_type))
    if pt.is_string_view(kind):
        return pa.string()
    return pa.binary() if pt.is_binary_view(kind) else kind


def plain_columns(columns: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(field.name, plain(field.type)) for field in columns])

"""Columns from the names of folders, `lang=en/n=1/part-0.parquet`: names and types as `pyarrow.dataset` infers them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

import pyarrow as pa

from transforms.inputs.request import InputSchema
from transforms.inputs.uris import relative_to
from transforms.inputs.values import INT32
from transforms.ledger.types import Source

NULL = "__HIVE_DEFAULT_PARTITION__"
WHOLE = re.compile(r"-?[0-9]+")


def folder_values(uri: str, root: str) -> dict[str, str | None]:
    """The values in the names of the folders between `root` and a file, by column."""
    pairs = (part.partition("=") for part in relative_to(uri, root).split("/")[:-1])
    return {
        unquote(name): None if value == NULL else unquote(value) for name, equals, value in pairs if equals and name
    }


def folder_columns(files: Iterable[tuple[str, str]]) -> dict[str, pa.DataType]:
    """The columns that the folders of `files` (URI and root of each) give: int32 if every value is one, else string."""
    whole: dict[str, bool] = {}
    for uri, root in files:
        if "=" in uri:
            for name, value in folder_values(uri, root).items():
                whole[name] = whole.get(name, True) and (value is None or _is_int32(value))
    return {name: pa.int32() if fits else pa.string() for name, fits in whole.items()}


def _is_int32(value: str) -> bool:
    return len(value) < 32 and WHOLE.fullmatch(value) is not None and int(value) in INT32


def values_of(source: Source, schema: InputSchema) -> dict[str, str | int | None]:
    """The values of the columns `schema.folders` for every row of a source, numbers where a column holds numbers.

    A value that is no number then comes as text, which does not fit the column.
    """
    if not schema.folders:
        return {}
    found = folder_values(source.uri, source.root)
    kinds = dict(zip(schema.origins, schema.passthrough.types, strict=True))
    values: dict[str, str | int | None] = {}
    for name in schema.folders:
        value = found.get(name)
        is_number = value is not None and pa.types.is_integer(kinds.get(name, pa.string())) and _is_int32(value)
        values[name] = int(value) if is_number and value is not None else value
    return values

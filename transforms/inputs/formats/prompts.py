"""Rows of prompts: from the record of a table, and from the texts that a plan carries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from transforms.errors import RowRejected
from transforms.inputs.options import option_value
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row, batches
from transforms.inputs.values import key_of, passed, shown
from transforms.ledger.types import Slice

MAX_PROMPT_BYTES = 64 << 10
KEY_BYTES = 16


def prompt_key(prompt: str) -> str:
    """The key of `key_from` "prompt": BLAKE2b of the prompt's UTF-8, 32 letters of hex. Equal for equal prompts."""
    return hashlib.blake2b(prompt.encode(), digest_size=KEY_BYTES).hexdigest()


def too_long(size: int) -> tuple[str, str] | None:
    """The error of a prompt of `size` bytes; None where it is not too long."""
    if size <= MAX_PROMPT_BYTES:
        return None
    return "prompt_too_long", f"the prompt has {size} bytes, more than {MAX_PROMPT_BYTES}"


def fill_prompt(row: Row, values: Mapping[str, Any], schema: InputSchema) -> Row:
    """Put prompt, key, options and pass-through values from one record into `row`.

    What is wrong with them makes the row a rejected one, which keeps its good options (how many images were asked for,
    for one) and no text.
    """
    if schema.key is not None:
        row.key = key_of(values.get(schema.key)) or row.key
    for name in schema.options:
        try:
            row.options[name.lower()] = option_value(name, values.get(name))
        except RowRejected as rejected:
            row.error = row.error or (rejected.code, rejected.message)
    prompt = values.get(schema.caption or "")
    if prompt is None or prompt == "":
        prompt = None
    elif not isinstance(prompt, str):
        row.error = row.error or ("schema_mismatch", f"the prompt is {shown(prompt)}, not a string")
    else:
        row.error = row.error or too_long(len(prompt.encode()))
        if schema.key_from == "prompt":
            row.key = prompt_key(prompt)
    try:
        if row.error is None:
            row.values = passed(values, schema.origins, schema.passthrough)
            row.caption = prompt
    except RowRejected as rejected:
        row.error = (rejected.code, rejected.message)
    return row


def read(part: Slice, schema: InputSchema) -> Iterator[pa.RecordBatch]:
    """Canonical batches of the prompts that a slice carries itself."""
    return batches(_rows(part, schema), schema)


def _rows(part: Slice, schema: InputSchema) -> Iterator[Row]:
    for number, prompt in enumerate(part.texts, part.start):
        if part.stop is not None and number >= part.stop:  # cut by --limit
            return
        row = Row(f"prompt-{number:06d}", f"{part.source.uri}#{number}")
        yield fill_prompt(row, {schema.caption or "": prompt}, schema)

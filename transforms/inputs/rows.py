"""The batch that every reader yields, and the rows that it is made from.

`transforms/batch.py` describes the columns: fixed ones come first, then those that pass through, with `PASS_PREFIX`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from models.bart.options import OPTIONS
from transforms import batch
from transforms.errors import RowRejected
from transforms.inputs.options import arrow_type, option_value
from transforms.inputs.request import InputSchema, Kind
from transforms.inputs.values import caption_of, decode_text, key_of, note, parse_json, passed, shown

MAX_BATCH_ROWS = 256
MAX_BATCH_BYTES = 32 << 20
OBJECT_BYTES = 64  # of memory, for a string of Python beside its letters
MAX_PROMPT_BYTES = 64 << 10
KEY_BYTES = 16
MORE_FIELDS = "further json fields, which the first samples have not, were left out"

PAYLOAD: dict[Kind, list[pa.Field]] = {
    "images": [pa.field(batch.IMAGE, pa.large_binary()), pa.field(batch.IMAGE_URI, pa.string())],
    "codes": [pa.field(batch.CODES, pa.list_(pa.int64()))],
    "prompts": [pa.field(name, arrow_type(name)) for name in OPTIONS],  # null if left open; the prompt is the caption
}


@dataclass(slots=True)
class Row:
    """One row on its way into a batch; `values` are the pass-through columns by their names in the output."""

    key: str
    uri: str
    caption: str | list[str] | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    filtered: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def reject(self, cause: RowRejected) -> Row:
        """The row, rejected for `cause` unless it is rejected already."""
        self.error = self.error or (cause.code, cause.message)
        return self


def batch_schema(schema: InputSchema) -> pa.Schema:
    """The Arrow schema of the batches of a job."""
    return pa.schema(
        [
            pa.field(batch.KEY, pa.string(), nullable=False),
            pa.field(batch.CAPTION, schema.caption_type),
            pa.field(batch.URI, pa.string()),
            *PAYLOAD[schema.kind],
            *(pa.field(name, pa.string()) for name in (batch.ERROR_CODE, batch.ERROR_MESSAGE, batch.FILTERED)),
            *(column.with_name(batch.PASS_PREFIX + column.name) for column in schema.passthrough),
        ]
    )


def batches(rows: Iterable[Row], schema: InputSchema) -> Iterator[pa.RecordBatch]:
    """Gather rows into batches of at most `MAX_BATCH_ROWS` rows and about `MAX_BATCH_BYTES` of images and text."""
    arrow = batch_schema(schema)
    gathered: list[Row] = []
    size = 0
    for row in rows:
        gathered.append(row)
        size += _size(row)
        if len(gathered) >= MAX_BATCH_ROWS or size >= MAX_BATCH_BYTES:
            yield pa.RecordBatch.from_pylist([_cells(row) for row in gathered], arrow)
            gathered, size = [], 0
    if gathered:
        yield pa.RecordBatch.from_pylist([_cells(row) for row in gathered], arrow)


def _size(row: Row) -> int:
    texts = (row.caption, *row.values.values())
    return len(row.payload.get(batch.IMAGE) or b"") + sum(map(_text_size, texts))


def _text_size(value: Any) -> int:
    """Roughly the memory of texts: a list of many short ones costs more than its letters."""
    if isinstance(value, list):
        return sum(OBJECT_BYTES + len(item or "") for item in value)
    return len(value) if isinstance(value, (str, bytes)) else 0


def _cells(row: Row) -> dict[str, Any]:
    fault = (None, None) if row.filtered else row.error or (None, None)  # a row is left out for one reason
    fixed = {batch.KEY: row.key, batch.CAPTION: row.caption, batch.URI: row.uri, batch.FILTERED: row.filtered}
    passing = {batch.PASS_PREFIX + name: value for name, value in row.values.items()}
    return {**fixed, **row.payload, batch.ERROR_CODE: fault[0], batch.ERROR_MESSAGE: fault[1], **passing}


def fill_sample(row: Row, texts: Mapping[str, bytes], schema: InputSchema, notices: Counter[str]) -> Row:
    """Fills `row` with caption, key, status and pass-through values from the text files of a sample, by extension.

    A fault in them rejects the row. Fields that the plan does not know are counted in `notices`.
    """
    try:
        record = parse_json(texts["json"]) if "json" in texts else {}
        _fill_from_record(row, record, schema)
        if schema.caption is not None and schema.caption in texts:
            text = decode_text(texts[schema.caption])
            row.caption = caption_of(text, schema.caption_is_list) or row.caption
        if schema.members:
            members = {name: _member_value(name, texts, schema, notices) for name in schema.members if name in texts}
            record = {**record, **members}
        if schema.origins:
            row.values = passed(record, schema.origins, schema.passthrough, notices if schema.reading > 1 else None)
    except RowRejected as rejected:
        return row.reject(rejected)
    if not schema.chosen:
        for name in record.keys() - schema.known:
            note(notices, f"json field {shown(name)}, which the first samples have not, was left out", MORE_FIELDS)
    return row


def _member_value(
    name: str, texts: Mapping[str, bytes], schema: InputSchema, notices: Counter[str]
) -> bytes | str | None:
    """What a member of a sample passes through as: its bytes, or its text."""
    if not pa.types.is_string(schema.passthrough.field(schema.origins.index(name)).type):
        return texts[name]
    try:
        return texts[name].decode()
    except UnicodeDecodeError:
        note(notices, f"a {shown(name)} is no UTF-8, the planned type is string; null was written")
        return None


def _fill_from_record(row: Row, record: Mapping[str, Any], schema: InputSchema) -> None:
    if schema.key is not None:
        row.key = key_of(record.get(schema.key)) or row.key
    if schema.status is not None and record.get(schema.status, "success") != "success":
        row.filtered = "status"
    if schema.caption_field is not None:
        row.caption = caption_of(record.get(schema.caption_field), schema.caption_is_list)


def prompt_key(prompt: str) -> str:
    """The key of `key_from` "prompt": BLAKE2b of the prompt's UTF-8, 32 letters of hex. Equal for equal prompts."""
    return hashlib.blake2b(prompt.encode(), digest_size=KEY_BYTES).hexdigest()


def too_long(size: int) -> tuple[str, str] | None:
    """The error of a prompt of `size` bytes; None if it is not too long."""
    if size <= MAX_PROMPT_BYTES:
        return None
    return "prompt_too_long", f"the prompt has {size} bytes, more than {MAX_PROMPT_BYTES}"


def fill_prompt(row: Row, values: Mapping[str, Any], schema: InputSchema) -> Row:
    """Fills `row` with prompt, key, options and pass-through values from one record.

    A fault in them rejects the row, which keeps its good options (the number of images, for one) and no text.
    """
    if schema.key is not None:
        row.key = key_of(values.get(schema.key)) or row.key
    for name in schema.options:
        try:
            row.payload[name.lower()] = option_value(name, values.get(name))
        except RowRejected as rejected:
            row.reject(rejected)
    prompt = values.get(schema.caption or "")
    if prompt is None or prompt == "":
        prompt = None
    elif not isinstance(prompt, str):
        row.reject(RowRejected("schema_mismatch", f"the prompt is {shown(prompt)}, not a string"))
    else:
        row.error = row.error or too_long(len(prompt.encode()))
        if schema.key_from == "prompt":
            row.key = prompt_key(prompt)
    try:
        if row.error is None:
            row.values = passed(values, schema.origins, schema.passthrough)
            row.caption = prompt
    except RowRejected as rejected:
        row.reject(rejected)
    return row

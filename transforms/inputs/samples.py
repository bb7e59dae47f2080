"""A row out of the files of one sample: an image, perhaps a text, perhaps a json. For tars and for folders alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from transforms.errors import RowRejected
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import Row
from transforms.inputs.values import caption_of, key_of, passed, shown

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
MAX_TEXT_BYTES = 16 << 20  # of a text, a json or a line of a table


def fill_row(row: Row, texts: Mapping[str, bytes], schema: InputSchema, notices: Counter[str]) -> Row:
    """Put caption, key, status and pass-through values from the text files of a sample (by extension) into `row`.

    What is wrong with them makes the row a rejected one. Fields that the plan does not know are counted in `notices`.
    """
    try:
        record = parse_json(texts["json"]) if "json" in texts else {}
        _fill_from_record(row, record, schema)
        if schema.caption is not None and schema.caption in texts:
            text = decode_text(texts[schema.caption])
            row.caption = caption_of(text, schema.caption_is_list) or row.caption
        row.values = passed(record, schema.origins, schema.passthrough)
    except RowRejected as rejected:
        row.error = row.error or (rejected.code, rejected.message)
        return row
    if not schema.chosen:
        for name in record.keys() - schema.known:
            notices[f"json field {name!r}, which the first samples have not, was left out"] += 1
    return row


def _fill_from_record(row: Row, record: Mapping[str, Any], schema: InputSchema) -> None:
    if schema.key is not None:
        row.key = key_of(record.get(schema.key)) or row.key
    if schema.status is not None and record.get(schema.status, "success") != "success":
        row.filtered = "status"
    if schema.caption_field is not None:
        row.caption = caption_of(record.get(schema.caption_field), schema.caption_is_list)


def decode_text(data: bytes) -> str:
    """Raises `RowRejected` ("broken_record") where the bytes are not UTF-8."""
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowRejected("broken_record", f"the text is not UTF-8: {error}") from error


def parse_json(data: bytes) -> dict[str, Any]:
    """A json object. Raises `RowRejected` ("broken_record") where the bytes hold none."""
    try:
        record = json.loads(data)
        if b"\\u" in data:
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise RowRejected("broken_record", f"no valid json: {error}") from error
    if not isinstance(record, dict):
        raise RowRejected("broken_record", f"the json is {shown(record)}, not an object")
    return record


def utf8(name: str) -> str:
    """A file name as text that every table can hold; bytes that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

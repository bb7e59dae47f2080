"""Values of text tables and of json beside images: how they are parsed, which type a column gets, and what fits it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa

from transforms.errors import RowRejected

STRINGS = pa.list_(pa.string())
EXACT_IN_DOUBLE = 1 << 53
INT32 = range(-(1 << 31), 1 << 31)
INT64 = range(-(1 << 63), 1 << 63)
MAX_TEXT_BYTES = 16 << 20  # of a text, a json or a line of a table
UNFIT_NUMBER = "{name} is a number that does not fit {type}, the planned type; null was written"
MAX_NOTICES = 100  # of a shard, each in other words


class TypeGuess:
    """The narrowest type of each field over all added records: bool, int64, double, string, list<string>.

    Anything else (mixed kinds, nested values, integers beyond 64 bits) becomes a string that holds json.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            self._kinds.setdefault(name, set()).add(_kind(value))

    def add_json(self, data: bytes) -> None:
        """A json object; one that cannot be parsed is passed over, as reading it makes that a rejected row."""
        with suppress(RowRejected):
            self.add(parse_json(data))

    @property
    def has_nulls_only(self) -> bool:
        """Whether some field had no value yet that tells its type."""
        return any(kinds == {"null"} for kinds in self._kinds.values())

    def schema(self) -> pa.Schema:
        """In the order in which the fields were first seen."""
        return pa.schema([(name, _type_of(kinds - {"null"})) for name, kinds in self._kinds.items()])


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= EXACT_IN_DOUBLE else "long" if value in INT64 else "other"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list) and all(isinstance(item, str) or item is None for item in value):
        return "strings"
    return "other"


def _type_of(kinds: set[str]) -> pa.DataType:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"}:
        return pa.float64()
    if "strings" in kinds and kinds <= {"string", "strings"}:
        return STRINGS  # a single string among lists becomes a list of one
    return pa.string()


def fit(value: Any, kind: pa.DataType, name: str) -> Any:
    """`value` as `kind`. Raises `RowRejected` ("schema_mismatch") if that would lose something."""
    if value is None or kind == pa.null():
        return None
    if isinstance(value, bytes) and pa.types.is_binary(kind):
        return value
    found = _kind(value)
    if pa.types.is_int64(kind) and found == "float" and value.is_integer() and abs(value) <= EXACT_IN_DOUBLE:
        return int(value)
    if pa.types.is_string(kind):
        return value if found == "string" else json.dumps(value, ensure_ascii=False)
    if pa.types.is_boolean(kind) and found == "bool":
        return value
    if pa.types.is_int64(kind) and found in ("int", "long"):
        return value
    if pa.types.is_int32(kind) and found == "int" and value in INT32:  # of the name of a folder
        return value
    if pa.types.is_float64(kind) and found in ("int", "float"):
        return float(value)
    if kind == STRINGS and found in ("string", "strings"):
        return [value] if found == "string" else value
    raise RowRejected("schema_mismatch", f"{name} is {shown(value)}, the plan fixed its type as {kind}")


def is_blank(value: Any) -> bool:
    """Whether a caption says nothing: null, blanks, or a list of nothing else."""
    if isinstance(value, list):
        return all(item is None or (isinstance(item, str) and not item.strip()) for item in value)
    return value is None or (isinstance(value, str) and not value.strip())


def caption_of(value: Any, is_list: bool) -> str | list[str] | None:
    """A caption as the job keeps it: a list, also of a single one, if the job has lists; None if it is blank.

    A whole number is its digits. Raises `RowRejected`.
    """
    value = _digits(value) if type(value) in (int, float) else value
    if is_blank(value):
        return None
    if is_list and isinstance(value, str):
        return [value]
    if isinstance(value, str) if not is_list else _kind(value) == "strings":
        return value
    wanted = "a list of strings" if is_list else "a string"
    raise RowRejected("schema_mismatch", f"the caption is {shown(value)}, the plan fixed captions as {wanted}")


def key_of(value: Any) -> str | None:
    """A key as a string; None if `value` makes no key, so that the row is named by file and number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value in ("", math.inf, -math.inf):
        return None
    digits = _digits(value)
    return None if digits is None else str(digits)


def _digits(value: Any) -> Any:
    """A number that is whole as its digits, NaN as None, others as they are: a gap in a column of integers makes
    floats of them."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) <= EXACT_IN_DOUBLE else value
    return str(value) if isinstance(value, int) else value


def passed(
    record: Mapping[str, Any], origins: Iterable[str], kinds: pa.Schema, notices: Counter[str] | None = None
) -> dict[str, Any]:
    """The pass-through values of one record, by their names in the output. Raises `RowRejected`.

    With `notices`, a fraction in a column of integers becomes null and is counted; so is a number that a column of
    strings keeps as text.
    """
    values: dict[str, Any] = {}
    for name, field in zip(origins, kinds, strict=True):
        value = record.get(name)
        try:
            values[field.name] = fit(value, field.type, name)
        except RowRejected:
            if notices is None or not (isinstance(value, float) and pa.types.is_int64(field.type)):
                raise
            values[field.name] = None
            note(notices, UNFIT_NUMBER.format(name=shown(name), type=field.type))
        if notices is not None and type(value) in (int, float) and pa.types.is_string(field.type):
            note(notices, f"{shown(name)} is a number, the planned type is string; its digits were written")
    return values


def note(notices: Counter[str], text: str, rest: str = "other notices", count: int = 1) -> None:
    """Counts `text`, or `rest` if there are too many different texts: names from the data must not fill the memory."""
    notices[text if text in notices or len(notices) < MAX_NOTICES else rest] += count


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def decode_text(data: bytes) -> str:
    """Raises `RowRejected` ("broken_record") if the bytes are not UTF-8."""
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowRejected("broken_record", f"the text is not UTF-8: {error}") from error


def parse_json(data: bytes) -> dict[str, Any]:
    """A json object. Raises `RowRejected` ("broken_record") if the bytes hold none."""
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

"""The cells of a row of prompts that say how it is drawn: read, and checked against `models/bart/options.py`."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from numbers import Real
from typing import Any

import pyarrow as pa

from models.bart.options import OPTIONS
from transforms.errors import RowRejected
from transforms.inputs.values import EXACT_IN_DOUBLE, shown

MAX_DIGITS = 64  # of a number in a text table
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def arrow_type(name: str) -> pa.DataType:
    """The type of an option's column."""
    return pa.type_for_alias(OPTIONS[name].type)


def option_value(column: str, value: Any) -> int | float | None:
    """The value of an option in the column of that name (in any case); None if the cell is null or blank.

    Raises `RowRejected` ("bad_value").
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    option = OPTIONS[column.lower()]
    number = _whole(value) if option.is_whole else _finite(value)
    if number is None or not option.fits(number):
        raise RowRejected("bad_value", f"{column} is {shown(value)}, expected {option.wanted}")
    return number


def _whole(value: Any) -> int | None:
    """`value` as a whole number, however written (3, 3.0, "3"), else None; gaps in a table make floats of integers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip() if isinstance(value, (str, Decimal)) else ""
    if len(text) <= MAX_DIGITS and WHOLE.fullmatch(text):
        return int(text)
    number = _finite(value)
    return int(number) if number is not None and number.is_integer() and abs(number) <= EXACT_IN_DOUBLE else None


def _finite(value: Any) -> float | None:
    """`value` as a finite number, else None."""
    if isinstance(value, (str, Decimal)):
        text = str(value).strip()
        number = float(text) if len(text) <= MAX_DIGITS and NUMBER.fullmatch(text) else math.nan
    elif isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the range of a double
            return None
    else:
        return None
    return number if math.isfinite(number) else None

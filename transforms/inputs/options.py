"""What a row of prompts may ask for besides its prompt: a seed, how many images, how they are drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import pyarrow as pa

from models.bart.drawing_limits import USABLE
from transforms.errors import RowRejected
from transforms.inputs.values import EXACT_IN_DOUBLE, shown

MAX_IMAGES = 10_000  # of one prompt
MAX_DIGITS = 64  # of a number in a text table
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Option:
    """`fits` tells whether a finite number can be used; `wanted` says the same in words."""

    type: pa.DataType
    fits: Callable[[Any], bool]
    wanted: str


OPTIONS: dict[str, Option] = {
    "seed": Option(pa.int64(), lambda value: 0 <= value < 1 << 63, "a whole number from 0 to 2^63 - 1"),
    "images": Option(pa.int32(), lambda value: 1 <= value <= MAX_IMAGES, f"a whole number from 1 to {MAX_IMAGES}"),
    "guidance_scale": Option(pa.float64(), USABLE["guidance_scale"], "a finite number from -1e6 to 1e6"),
    "temperature": Option(pa.float64(), USABLE["temperature"], "a finite number above 0, from 1e-6 to 1e6"),
    "top_k": Option(pa.int32(), USABLE["top_k"], "a whole number from 0 to 2^31 - 1"),
    "top_p": Option(pa.float64(), USABLE["top_p"], "a number above 0, and at most 1"),
}


def option_fields() -> list[pa.Field]:
    """The columns of a canonical batch; null where the row asks for nothing."""
    return [pa.field(name, option.type) for name, option in OPTIONS.items()]


def option_value(column: str, value: Any) -> int | float | None:
    """The value of an option in the column of that name (in any case); None where the cell is null or blank.

    Raises `RowRejected` ("bad_value").
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    option = OPTIONS[column.lower()]
    number = _whole(value) if pa.types.is_integer(option.type) else _finite(value)
    if number is None or not option.fits(number):
        raise RowRejected("bad_value", f"{column} is {shown(value)}, expected {option.wanted}")
    return number


def _whole(value: Any) -> int | None:
    """`value` where it is a whole number, however written (3, 3.0, "3"); tables with gaps turn integers to floats."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip() if isinstance(value, (str, Decimal)) else ""
    if len(text) <= MAX_DIGITS and WHOLE.fullmatch(text):
        return int(text)
    number = _finite(value)
    return int(number) if number is not None and number.is_integer() and abs(number) <= EXACT_IN_DOUBLE else None


def _finite(value: Any) -> float | None:
    """`value` where it is a finite number; None where it is not."""
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

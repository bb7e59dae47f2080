"""What the text of a flag may be, and the value that it becomes."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from functools import partial
from typing import get_args

from models.bart.options import OPTIONS
from models.devices import SHORT_NAMES
from transforms.errors import RowRejected
from transforms.image_options import AUTO, BY_ROW, Resize
from transforms.inputs.options import option_value

SQUARES = (AUTO, *(name for name in get_args(Resize) if name not in BY_ROW))  # of --resize


def number(text: str, *, kind: type[int] | type[float], low: float, high: float, wanted: str) -> float:
    try:
        value: float = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {wanted}")
    return value


positive = partial(number, kind=int, low=1, high=math.inf, wanted="a whole number, at least 1")
share = partial(number, kind=float, low=0, high=1, wanted="a number from 0 to 1")
cosine = partial(number, kind=float, low=-1, high=1, wanted="a number from -1 to 1")


def option(name: str) -> Callable[[str], int | float]:
    """The type of a flag that means what the column `name` of a row means (`models/bart/options.py`)."""

    def value(text: str) -> int | float:
        try:
            found = option_value(name, text)
        except RowRejected:
            found = None
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {OPTIONS[name].wanted}")
        return found

    return value


def dtype(text: str) -> str:
    """The name of a dtype, also from a short one; which there are is for the flag to say."""
    return SHORT_NAMES.get(text, text)


def pixel_range(text: str) -> tuple[float, float]:
    """ "0,1" or "-1,1"."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected LOW,HIGH such as 0,1 or -1,1") from None
    if not low < high:
        raise argparse.ArgumentTypeError(f"{text!r}: LOW must be below HIGH")
    return low, high


def resize(text: str) -> str:
    """One of `SQUARES`, "bucket" or "area:N"."""
    if text in (*SQUARES, "bucket") or re.fullmatch(r"area:[1-9]\d{0,7}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r}: expected {', '.join(SQUARES)}, bucket or area:N, such as area:512 for 512 x 512 pixels"
    )


def buckets(text: str) -> tuple[tuple[int, int], ...]:
    found = [re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", part) for part in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT,... such as 256x256,320x192")
    return tuple((int(match[1]), int(match[2])) for match in found if match)


def numbers(text: str) -> tuple[float, ...]:
    """One number, or two with a comma between."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 2) or not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, or LOW,HIGH")
    return found


def pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r}: expected OLD=NEW")
    return old, new

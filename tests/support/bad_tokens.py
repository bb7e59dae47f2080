"""Kinds of bad input to `decode`, each with the rows that it must give: the table behind `test_bad_tokens.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.bad_inputs import TWO_LONG_KEYS, Bad
from tests.support.make_inputs import table

CODES_PER_IMAGE = 64  # of the tiny model, 8x8
CODEBOOK = 32
GOOD_CODES = [number % CODEBOOK for number in range(CODES_PER_IMAGE)]
INTEGERS = (pa.uint8(), pa.int8(), pa.uint16(), pa.int16(), pa.uint32(), pa.int32(), pa.uint64(), pa.int64())


@dataclass(frozen=True)
class TokenCase:
    """`data` is the Parquet file that is given to decode; `good` are the keys of the images, in order."""

    name: str
    data: bytes
    good: tuple[str, ...]
    bad: tuple[Bad, ...] = ()


def tokens(cells: list[Any], kind: pa.DataType | None = None, name: str = "encoding", **columns: Any) -> bytes:
    """A token table of another project, without provenance."""
    keys = [f"r{row}" for row in range(len(cells))]
    codes = pa.array(cells, kind or pa.list_(pa.int64()))
    return table({"key": keys, name: codes, "caption": [f"c {key}" for key in keys], **columns})


def int16_bytes(codes: list[int]) -> bytes:
    return np.array(codes, "<i2").tobytes()


def bad(code: str, row: int, message: str) -> Bad:
    return Bad(code, f"r{row}", f"tokens.parquet#{row}", message)


CASES = (
    TokenCase(
        "too few and too many codes",
        tokens([GOOD_CODES, GOOD_CODES[:-1], [*GOOD_CODES, 1], [], GOOD_CODES]),
        ("r0", "r4"),
        (
            bad("wrong_code_count", 1, "63 codes"),
            bad("wrong_code_count", 2, "65 codes"),
            bad("wrong_code_count", 3, "0 codes"),
        ),
    ),
    TokenCase(
        "codes outside the codebook",
        tokens(
            [GOOD_CODES, [CODEBOOK, *GOOD_CODES[1:]], [-1, *GOOD_CODES[1:]], [1 << 40, *GOOD_CODES[1:]], GOOD_CODES]
        ),
        ("r0", "r4"),
        (
            bad("code_out_of_range", 1, "code 32; the codebook has 32"),
            bad("code_out_of_range", 2, "code -1"),
            bad("code_out_of_range", 3, str(1 << 40)),
        ),
    ),
    TokenCase(
        "codes beyond 64 bits",
        tokens([GOOD_CODES, [(1 << 64) - 1, *GOOD_CODES[1:]]], pa.list_(pa.uint64())),
        ("r0",),
        (bad("code_out_of_range", 1, "64 bits"),),
    ),
    TokenCase(
        "null codes",
        tokens([GOOD_CODES, None, [None, *GOOD_CODES[1:]], GOOD_CODES]),
        ("r0", "r3"),
        (bad("missing_codes", 1, "null"), bad("missing_codes", 2, "null")),
    ),
    TokenCase(
        "the bytes of 16-bit integers",
        tokens([int16_bytes(GOOD_CODES), b"\1\2\3", int16_bytes([-5, *GOOD_CODES[1:]]), None], pa.binary()),
        ("r0",),
        (
            bad("wrong_code_count", 1, "3 bytes"),
            bad("code_out_of_range", 2, "code -5"),
            bad("missing_codes", 3, "null"),
        ),
    ),
    *(TokenCase(f"a list of {kind}", tokens([GOOD_CODES], pa.list_(kind)), ("r0",)) for kind in INTEGERS),
    TokenCase("a large list", tokens([GOOD_CODES], pa.large_list(pa.int32())), ("r0",)),
    TokenCase("a list of fixed size", tokens([GOOD_CODES], pa.list_(pa.int32(), CODES_PER_IMAGE)), ("r0",)),
    TokenCase("a column of another name", tokens([GOOD_CODES], name="image_tokens"), ("r0",)),
    TokenCase("keys as numbers", tokens([GOOD_CODES], key=pa.array([17])), ("17",)),
    TokenCase("duplicate keys", tokens([GOOD_CODES, GOOD_CODES], key=["same", "same"]), ("same", "same")),
    TokenCase(
        "keys that climb out of their folder",
        tokens([GOOD_CODES, GOOD_CODES, GOOD_CODES], key=["../../up", "/etc/passwd", ".."]),
        ("../../up", "/etc/passwd", ".."),
    ),
    TokenCase("long keys and keys in every script", tokens([GOOD_CODES] * 2, key=TWO_LONG_KEYS), TWO_LONG_KEYS),
)

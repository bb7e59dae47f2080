"""Prints for people: names and messages from data reach the terminal without control characters."""

from __future__ import annotations

import re
import sys
from typing import TextIO

# All but line breaks and tabs; what turns the direction of text; halves of characters, which cannot be printed.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """Text with its control characters written as `\\x1b`."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines, on stdout by default."""
    print(*map(shown, lines), sep="\n", file=file or sys.stdout, flush=flush)

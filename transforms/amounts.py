"""Numbers of things and of bytes in the words of messages."""

from __future__ import annotations


def amount(number: int, things: str) -> str:
    """ "1 image" and "2,000 images" for `things` "images"."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def size_text(size: float) -> str:
    """Bytes in kB below a tenth of a MB, else in MB."""
    return f"{size / 1e3:,.1f} kB" if size < 1e5 else f"{size / 1e6:,.1f} MB"

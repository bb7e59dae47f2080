"""Images that stand in a text cell themselves: as a data URI, or as base64."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from transforms.errors import RowRejected, amount, brief

LONGEST_PATH = 8192  # characters: no file system or web server takes a longer one
SHORTEST_IMAGE = 32  # characters: less is a path that looks like base64
BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}", re.ASCII)
HEAD = 64  # characters that tell whether it begins like an image
URL_SAFE = str.maketrans("-_", "+/")


def embedded_image(cell: str) -> bytes | None:
    """The bytes of an image that a cell holds; None for a path or URI.

    Raises `RowRejected` ("not_an_image") for a data URI without valid data, and for text that is too long for a path.
    """
    if cell[:5].lower() == "data:" or cell.lstrip()[:5].lower() == "data:":
        return _data_uri(cell.lstrip())
    if _begins_like_image(cell):
        data = _decode(cell)
        if data is not None:
            return data
    if len(cell) > LONGEST_PATH:
        raise RowRejected(
            "not_an_image",
            f"the cell holds {amount(len(cell), 'characters')}, no path and no base64 of an image: {brief(cell)!r}",
        )
    return None


def _begins_like_image(cell: str) -> bool:
    from transforms.image_formats import sniff_format  # Pillow is not needed to list inputs

    head = "".join(cell[: 2 * HEAD].split())[:HEAD]
    if len(head) < SHORTEST_IMAGE or not BASE64.fullmatch(head):
        return False
    whole = head.rstrip("=")
    data = _decode(whole[: len(whole) // 4 * 4]) or b""
    return sniff_format(data) is not None and (data[:2] != b"BM" or data[6:10] == bytes(4))


def _data_uri(cell: str) -> bytes:
    head, comma, text = cell.partition(",")
    data = None
    if comma and head.rpartition(";")[2].strip().lower() == "base64":
        data = _decode(unquote_to_bytes(text).decode("latin-1") if "%" in text else text)
    elif comma:
        data = unquote_to_bytes(text)
    if data is None:
        what = "no valid base64" if comma else "no comma, so no data"
        raise RowRejected("not_an_image", f"the data URI has {what}: {brief(cell)!r}")
    return data


def _decode(text: str) -> bytes | None:
    """The bytes of base64, also of its URL-safe letters, with line breaks and without padding; None if it is none."""
    text = "".join(text.split()).rstrip("=").translate(URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None

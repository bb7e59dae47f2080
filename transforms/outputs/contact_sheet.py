"""Many pictures with their captions on one overview: what `--contact_sheet` writes and a person looks at first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (246, 246, 244)
BORDER = (222, 222, 218)
INK = (52, 52, 56)

MARGIN = 28  # around the sheet, pixels
GAP = 22  # between pictures, and under the captions
SEAM = 4  # between the pictures of one prompt
STRIP = 4  # pictures of one prompt that stand in one row
FONT_SIZE = 14
CAPTION_GAP = 6  # between a picture and its caption
LINE_HEIGHT = 19
CAPTION_LINES = 3
LONGEST = 400  # characters of a caption that are looked at
SMALLEST_CELL = 128  # narrower pictures are enlarged by a whole factor until they are at least this wide
ELLIPSIS = "..."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str | None], *, columns: int | None = None
) -> Image.Image:
    """Pictures, uint8 [H, W, 3] each, in reading order with wrapped captions beneath -> one RGB image.

    `columns` None makes a sheet a little wider than high. The sheet is as wide as `columns` of the widest picture.
    Raises `ValueError` where there is no picture, or not a caption (or None) for each.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"a contact sheet of {len(pictures)} pictures and {len(captions)} captions")
    columns = min(columns or balanced_columns(len(pictures)), len(pictures))
    font = ImageFont.load_default(FONT_SIZE)
    tiles = [enlarged(picture) for picture in pictures]
    cell = max(tile.width for tile in tiles)
    texts = [wrap(caption or "", font, cell) for caption in captions]

    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    heights = [max(tiles[i].height for i in row) for row in rows]
    depths = [max(len(texts[i]) for i in row) * LINE_HEIGHT for row in rows]
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN + columns * cell + (columns - 1) * GAP,
            2 * MARGIN + sum(heights) + sum(depths) + (GAP + CAPTION_GAP) * len(rows) - GAP,
        ),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row, height, depth in zip(rows, heights, depths, strict=True):
        for column, i in enumerate(row):
            left = MARGIN + column * (cell + GAP) + (cell - tiles[i].width) // 2
            draw.rectangle((left - 1, top - 1, left + tiles[i].width, top + tiles[i].height), outline=BORDER)
            sheet.paste(tiles[i], (left, top))
            for number, line in enumerate(texts[i]):
                centre = MARGIN + column * (cell + GAP) + cell / 2
                draw.text((centre, top + height + CAPTION_GAP + number * LINE_HEIGHT), line, INK, font, anchor="ma")
        top += height + CAPTION_GAP + depth + GAP
    return sheet


def montage(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The pictures of one prompt, uint8 [H, W, 3] each, side by side as one: up to four in a row, more in a square."""
    columns = len(pictures) if len(pictures) <= STRIP else math.ceil(math.sqrt(len(pictures)))
    tiles = [enlarged(picture) for picture in pictures]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    rows = math.ceil(len(tiles) / columns)
    size = (columns * (width + SEAM) - SEAM, rows * (height + SEAM) - SEAM)
    whole = Image.new("RGB", size, BACKGROUND)
    for i, tile in enumerate(tiles):
        whole.paste(tile, (i % columns * (width + SEAM), i // columns * (height + SEAM)))
    return np.asarray(whole)


def balanced_columns(count: int) -> int:
    """Columns that make a sheet a little wider than high, with few empty places in the last row."""
    ideal = round(math.sqrt(1.6 * count))
    return min(range(max(1, ideal - 1), ideal + 3), key=lambda n: (-count % n, abs(n - ideal), -n))


def enlarged(picture: np.ndarray) -> Image.Image:
    """A picture as it is, or small ones enlarged by a whole factor, smoothly."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = math.ceil(SMALLEST_CELL / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)


def wrap(caption: str, font: Font, width: int) -> list[str]:
    """At most three lines no wider than `width` pixels; words wider than that are broken, the rest is an ellipsis."""
    printable = "".join(c if c.isprintable() else " " for c in caption[:LONGEST])  # no line breaks, no lone surrogates
    lines: list[str] = []
    for word in printable.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
        if len(lines) > CAPTION_LINES:
            break
    if len(lines) > CAPTION_LINES:
        last = lines[CAPTION_LINES - 1]
        while last and font.getlength(last + ELLIPSIS) > width:
            last = last[:-1]
        lines[CAPTION_LINES - 1 :] = [last.rstrip() + ELLIPSIS]
    return lines

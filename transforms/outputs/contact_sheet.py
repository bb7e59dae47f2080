"""The contact sheet: one PNG of a sample of the images of an output folder with their captions, for a first look."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from transforms import storage
from transforms.batch import CAPTION, PROMPT, first_caption
from transforms.ledger.folder import CONTACT_SHEET
from transforms.outputs.layout import Layout
from transforms.outputs.sampling import sample_images

SHOWN = 48  # images
BACKGROUND = (246, 246, 244)
BORDER = (222, 222, 218)
INK = (52, 52, 56)

MARGIN = 28  # around the sheet, pixels
GAP = 22  # between images, and under the captions
SEAM = 4  # between the images of one prompt
STRIP = 4  # images of one prompt side by side
FONT_SIZE = 14
CAPTION_GAP = 6  # between an image and its caption
LINE_HEIGHT = 19
CAPTION_LINES = 3
LONGEST = 400  # characters of a caption that are looked at
SMALLEST_CELL = 128  # narrower images are enlarged by a whole factor until they are at least this wide
ELLIPSIS = "..."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_contact_sheet(output: str, layout: Layout, images: int) -> None:
    """Put `contact_sheet.png` into an output folder that holds so many images, unless it holds none."""
    tiles: list[np.ndarray] = []
    texts: list[str] = []
    widest = 1
    for found in sample_images(output, layout, (), images, SHOWN):
        pixels = [np.asarray(Image.open(io.BytesIO(image.read())).convert("RGB")) for image in found]
        row = found[0].row
        tiles.append(pixels[0] if len(found) == 1 else montage(pixels))
        texts.append(first_caption(row[PROMPT] if PROMPT in row else row[CAPTION]))
        widest = max(widest, min(len(found), STRIP))
    if tiles:
        columns = max(1, round(balanced_columns(len(tiles) * widest) / widest))
        sheet = contact_sheet(tiles, texts, columns=None if widest == 1 else columns)
        data = io.BytesIO()
        sheet.save(data, "PNG")
        storage.put_bytes(data.getvalue(), storage.join(output, CONTACT_SHEET))


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str | None], *, columns: int | None = None
) -> Image.Image:
    """Images, uint8 [H, W, 3] each, in reading order with wrapped captions beneath -> one RGB image.

    `columns` None makes a sheet a little wider than high. The sheet is as wide as `columns` of the widest image.
    Raises `ValueError` if there are no images, or not a caption (or None) for each.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a contact sheet of {len(images)} images and {len(captions)} captions")
    columns = min(columns or balanced_columns(len(images)), len(images))
    font = ImageFont.load_default(FONT_SIZE)
    tiles = [enlarged(image) for image in images]
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


def montage(images: Sequence[np.ndarray]) -> np.ndarray:
    """The images of one prompt, uint8 [H, W, 3] each, side by side as one: up to four in a row, more in a square."""
    columns = len(images) if len(images) <= STRIP else math.ceil(math.sqrt(len(images)))
    tiles = [enlarged(image) for image in images]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    rows = math.ceil(len(tiles) / columns)
    size = (columns * (width + SEAM) - SEAM, rows * (height + SEAM) - SEAM)
    whole = Image.new("RGB", size, BACKGROUND)
    for i, tile in enumerate(tiles):
        whole.paste(tile, (i % columns * (width + SEAM), i // columns * (height + SEAM)))
    return np.asarray(whole)


def balanced_columns(count: int) -> int:
    """Columns that make a sheet a little wider than high, with few empty cells in the last row."""
    ideal = round(math.sqrt(1.6 * count))
    return min(range(max(1, ideal - 1), ideal + 3), key=lambda n: (-count % n, abs(n - ideal), -n))


def enlarged(pixels: np.ndarray) -> Image.Image:
    """An image as it is, or a small one enlarged by a whole factor, smoothly."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
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

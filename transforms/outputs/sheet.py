"""The drawing of a contact sheet: panels of images with text beneath, as one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from transforms.outputs.fonts import Fonts
from transforms.outputs.lettering import Ink, Lettering, is_right_to_left

BACKGROUND = (246, 246, 244)
BORDER = (222, 222, 218)
INK = (52, 52, 56)
GREY = (138, 138, 142)

MARGIN = 28  # around the sheet, pixels
GAP = 22  # between panels, and under the captions
SEAM = 4  # between the images of a panel
APART = 14  # between an original and its variations
STRIP = 4  # images of a panel side by side
FONT_SIZE = 14
CAPTION_GAP = 6  # between an image and its text
LINE_HEIGHT = 19
ASCENT = 14  # from the top of a line to its baseline
CAPTION_LINES = 3
NO_FONT = "in grey the keys of those with captions that no font here has"
SMALLEST_CELL = 128  # narrower images are enlarged by a whole factor until they are at least this wide
LARGEST_CELL = 256  # wider or higher ones are reduced


@dataclass(frozen=True)
class Picture:
    """An image, RGB, and a few words about it."""

    image: Image.Image
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """The images of one row of the input, its caption, and the key that stands for a caption if it is empty or no font
    has its characters. `original` is what the images were made from."""

    pictures: Sequence[Picture]
    caption: str = ""
    key: str = ""
    original: Picture | None = None

    @property
    def columns(self) -> int:
        """Up to four images in a row, more in a square."""
        count = len(self.pictures)
        return count if count <= STRIP else math.ceil(math.sqrt(count))


@dataclass(frozen=True)
class Geometry:
    """What all panels of a sheet have in common, in pixels: the size of their images, whether these have notes, whether
    originals are there."""

    width: int
    height: int
    noted: bool
    with_original: bool
    columns: int

    @property
    def strip(self) -> int:
        """The width of a panel without its original, and of the text beneath."""
        return self.columns * (self.width + SEAM) - SEAM

    @property
    def indent(self) -> int:
        """The width of an original and of what is between it and the strip."""
        return self.width + APART if self.with_original else 0

    @property
    def cell(self) -> int:
        """The width of a panel."""
        return self.indent + self.strip

    @property
    def step(self) -> int:
        """From one row of images in a panel to the next."""
        return self.height + (CAPTION_GAP + LINE_HEIGHT if self.noted else SEAM)

    def depth(self, panel: Panel) -> int:
        """The height of the images of a panel with their notes."""
        rows = math.ceil(len(panel.pictures) / panel.columns)
        return rows * self.step - (0 if self.noted else SEAM)


@dataclass(frozen=True)
class Text:
    """The lines beneath a panel. `unlettered`: they stand for a caption that no font has."""

    lines: Sequence[str]
    ink: Ink
    right_to_left: bool = False
    unlettered: bool = False


def draw_sheet(
    panels: Sequence[Panel], title: str = "", *, columns: int | None = None, lettering: Lettering | None = None
) -> Image.Image:
    """Panels in reading order with wrapped captions beneath -> one RGB image.

    `columns` None makes a sheet a little wider than high. Raises `ValueError` if there are no panels.
    """
    if not panels:
        raise ValueError("a contact sheet of no images")
    letters = lettering or Lettering(Fonts(FONT_SIZE))
    panels = [_fitted(panel) for panel in panels]
    shown = [picture for panel in panels for picture in (*panel.pictures, *filter(None, [panel.original]))]
    shape = Geometry(
        width=max(picture.image.width for picture in shown),
        height=max(picture.image.height for picture in shown),
        noted=any(picture.note for panel in panels for picture in panel.pictures),
        with_original=any(panel.original for panel in panels),
        columns=max(panel.columns for panel in panels),
    )
    side_by_side = shape.columns + shape.with_original
    if columns is None:
        balanced = balanced_columns(len(panels) * side_by_side) / side_by_side if side_by_side > 1 else 0
        columns = max(1, round(balanced)) if balanced else balanced_columns(len(panels))
    columns = min(columns, len(panels))
    texts = [_text(panel, letters, shape.strip) for panel in panels]
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    depths = [max(shape.depth(panels[i]) for i in row) for row in rows]
    heights = [max(max(len(texts[i].lines), shape.with_original) for i in row) * LINE_HEIGHT for row in rows]
    if title and any(lines.unlettered for lines in texts):
        title = f"{title}; {NO_FONT}"
    width = columns * (shape.cell + GAP) - GAP
    heads = letters.wrap(title, width, CAPTION_LINES)
    head = len(heads) * LINE_HEIGHT + GAP // 2 if heads else 0
    size = (
        2 * MARGIN + width,
        2 * MARGIN + head + sum(depths) + sum(heights) + (GAP + CAPTION_GAP) * len(rows) - GAP,
    )
    sheet = Image.new("RGB", size, BACKGROUND)
    for number, line in enumerate(heads):
        baseline = MARGIN + number * LINE_HEIGHT + ASCENT
        letters.draw(sheet, line, MARGIN + letters.length(line) / 2, baseline, GREY)
    top = MARGIN + head
    for row, depth, height in zip(rows, depths, heights, strict=True):
        for column, i in enumerate(row):
            left = MARGIN + column * (shape.cell + GAP)
            _draw_panel(sheet, panels[i], shape, left, top, letters)
            text = texts[i]
            for number, line in enumerate(text.lines):
                baseline = top + depth + CAPTION_GAP + number * LINE_HEIGHT + ASCENT
                letters.draw(sheet, line, left + shape.indent + shape.strip / 2, baseline, text.ink, text.right_to_left)
        top += depth + CAPTION_GAP + height + GAP
    return sheet


def _draw_panel(sheet: Image.Image, panel: Panel, shape: Geometry, left: int, top: int, letters: Lettering) -> None:
    """The images of a panel in the middle of its width, the original at the left of them."""
    own = panel.columns * (shape.width + SEAM) - SEAM
    first = left + shape.indent + (shape.strip - own) // 2
    if panel.original:
        _draw_picture(sheet, panel.original, shape, left, top, letters)
    for i, picture in enumerate(panel.pictures):
        row, column = divmod(i, panel.columns)
        _draw_picture(sheet, picture, shape, first + column * (shape.width + SEAM), top + row * shape.step, letters)


def _draw_picture(
    sheet: Image.Image, picture: Picture, shape: Geometry, left: int, top: int, letters: Lettering
) -> None:
    image = picture.image
    x, y = left + (shape.width - image.width) // 2, top + shape.height - image.height  # what is said is close beneath
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=BORDER)
    sheet.paste(image, (x, y))
    if picture.note:
        for line in letters.wrap(picture.note, shape.width, 1):
            letters.draw(sheet, line, left + shape.width / 2, top + shape.height + CAPTION_GAP + ASCENT, GREY)


def _text(panel: Panel, letters: Lettering, width: int) -> Text:
    """What stands beneath a panel: the caption, else the key in grey."""
    lines = letters.wrap(panel.caption, width, CAPTION_LINES)
    if lines and all(map(letters.covers, lines)):
        return Text(lines, INK, is_right_to_left(panel.caption))
    unlettered = bool(lines)
    lines = letters.wrap(panel.key, width, 1)
    if all(map(letters.covers, lines)):
        return Text(lines, GREY, is_right_to_left(panel.key), unlettered)
    return Text(letters.wrap(panel.key.encode("ascii", "backslashreplace").decode(), width, 1), GREY, False, unlettered)


def _fitted(panel: Panel) -> Panel:
    original = panel.original and Picture(fitted(panel.original.image), panel.original.note)
    pictures = [Picture(fitted(picture.image), picture.note) for picture in panel.pictures]
    return Panel(pictures, panel.caption, panel.key, original)


def fitted(image: Image.Image) -> Image.Image:
    """An image as it is, a small one enlarged by a whole factor, smoothly, a large one reduced."""
    factor = math.ceil(SMALLEST_CELL / image.width)
    if factor > 1 and image.height * factor <= LARGEST_CELL:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
    if max(image.size) > LARGEST_CELL:
        scale = LARGEST_CELL / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def balanced_columns(count: int) -> int:
    """Columns that make a sheet a little wider than high, with few empty cells in the last row."""
    ideal = round(math.sqrt(1.6 * count))
    return min(range(max(1, ideal - 1), ideal + 3), key=lambda n: (-count % n, abs(n - ideal), -n))

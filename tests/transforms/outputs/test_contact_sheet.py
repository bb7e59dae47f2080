"""The contact sheet shows every image whole, in order, with its caption beneath."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from transforms.outputs.contact_sheet import (
    BACKGROUND,
    CAPTION_GAP,
    CAPTION_LINES,
    FONT_SIZE,
    GAP,
    INK,
    MARGIN,
    balanced_columns,
    contact_sheet,
    wrap,
)

FONT = ImageFont.load_default(FONT_SIZE)


def flat(level: int, side: int = 128) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def ink(sheet: Image.Image) -> int:
    """Pixels in the colour of captions."""
    return int((np.asarray(sheet) == INK).all(axis=2).sum())


def test_images_stand_in_reading_order():
    sheet = np.asarray(contact_sheet([flat(10 * i) for i in range(6)], [None] * 6, columns=3))
    for i in range(6):
        left = MARGIN + (i % 3) * (128 + GAP)
        top = MARGIN + (i // 3) * (128 + CAPTION_GAP + GAP)
        assert (sheet[top : top + 128, left : left + 128] == 10 * i).all()
    assert (sheet[:, : MARGIN - 1] == BACKGROUND).all()


def test_small_images_are_enlarged_by_a_whole_factor():
    assert contact_sheet([flat(0, 64)], [None]).size == contact_sheet([flat(0, 128)], [None]).size
    assert contact_sheet([flat(0, 256)], [None]).width == 256 + 2 * MARGIN


def test_captions_are_drawn_beneath():
    without = contact_sheet([flat(255)], [""])
    sheet = contact_sheet([flat(255)], ["a red apple"])
    assert ink(without) == 0
    assert ink(sheet.crop((0, MARGIN + 128, *sheet.size))) == ink(sheet) > 0


@pytest.mark.parametrize(
    "caption", ["りんご", "красное яблоко", "תפוח אדום", "🍎 e\u0301", "\ud800\0\x1b[31m", " \n\t "]
)
def test_captions_of_any_characters_are_drawn(caption):
    assert contact_sheet([flat(0)], [caption]).width == 128 + 2 * MARGIN


@pytest.mark.parametrize("caption", ["a rather long caption " * 50, "x" * 100_000, "wide " + "w" * 500])
def test_long_captions_end_in_an_ellipsis_within_the_width(caption):
    lines = wrap(caption, FONT, 128)
    assert len(lines) == CAPTION_LINES
    assert lines[-1].endswith("...")
    assert all(FONT.getlength(line) <= 128 for line in lines)


def test_captions_break_between_words():
    assert wrap("large orange diamond on white", FONT, 128) == ["large orange", "diamond on white"]


@pytest.mark.parametrize("count", range(1, 200))
def test_sheets_are_neither_towers_nor_ribbons(count):
    columns = min(balanced_columns(count), count)
    assert columns >= -(-count // columns) >= columns / 5


@pytest.mark.parametrize(("images", "captions"), [([], []), ([flat(0)], []), ([flat(0)], ["a", "b"])])
def test_a_caption_is_due_for_each_image(images, captions):
    with pytest.raises(ValueError, match="a contact sheet of"):
        contact_sheet(images, captions)

"""A sheet shows every image whole, in order, with its text beneath."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from transforms.outputs.fonts import Fonts
from transforms.outputs.lettering import Lettering
from transforms.outputs.sheet import (
    APART,
    BACKGROUND,
    CAPTION_GAP,
    GAP,
    GREY,
    INK,
    LARGEST_CELL,
    LINE_HEIGHT,
    MARGIN,
    NO_FONT,
    SEAM,
    Panel,
    Picture,
    balanced_columns,
    draw_sheet,
    fitted,
)


@pytest.fixture(scope="module")
def plain() -> Lettering:
    return Lettering(Fonts(14, []))


def flat(level: int, side: int = 128, note: str = "") -> Picture:
    return Picture(Image.new("RGB", (side, side), (level, level, level)), note)


def inked(sheet: Image.Image, colour: tuple[int, int, int] = INK) -> int:
    """Pixels of a colour."""
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


def whole(sheet: Image.Image, left: int, top: int, level: int, side: int = 128) -> bool:
    return bool((np.asarray(sheet)[top : top + side, left : left + side] == level).all())


def test_panels_stand_in_reading_order(plain: Lettering) -> None:
    sheet = draw_sheet([Panel([flat(10 * i)]) for i in range(6)], columns=3, lettering=plain)
    for i in range(6):
        left, top = MARGIN + (i % 3) * (128 + GAP), MARGIN + (i // 3) * (128 + CAPTION_GAP + GAP)
        assert whole(sheet, left, top, 10 * i)
    assert (np.asarray(sheet)[:, : MARGIN - 1] == BACKGROUND).all()


def test_images_of_one_row_are_side_by_side_four_at_most_and_more_in_a_square(plain: Lettering) -> None:
    step = 128 + SEAM
    three = draw_sheet([Panel([flat(10 * i) for i in range(3)])], lettering=plain)
    assert all(whole(three, MARGIN + i * step, MARGIN, 10 * i) for i in range(3))
    nine = draw_sheet([Panel([flat(10 * i) for i in range(9)])], lettering=plain)
    assert all(whole(nine, MARGIN + i % 3 * step, MARGIN + i // 3 * step, 10 * i) for i in range(9))


def test_an_original_stands_at_the_left_of_its_row(plain: Lettering) -> None:
    panels = [Panel([flat(50), flat(100)], original=flat(10)), Panel([flat(60), flat(110)], original=flat(20))]
    sheet = draw_sheet(panels, columns=1, lettering=plain)
    for number in range(2):
        top = MARGIN + number * (128 + CAPTION_GAP + LINE_HEIGHT + GAP)
        assert whole(sheet, MARGIN, top, 10 * (number + 1))
        first = MARGIN + 128 + APART
        assert whole(sheet, first, top, 50 + 10 * number)
        assert whole(sheet, first + 128 + SEAM, top, 100 + 10 * number)


def test_what_an_original_is_stands_beside_the_caption(plain: Lettering) -> None:
    sheet = draw_sheet([Panel([flat(255)], "a", original=Picture(flat(255).image, "original"))], lettering=plain)
    beneath = sheet.crop((0, MARGIN + 128, *sheet.size))
    assert inked(beneath.crop((0, 0, MARGIN + 128, beneath.height)), GREY) == inked(sheet, GREY) > 0
    assert inked(beneath.crop((MARGIN + 128, 0, *beneath.size))) == inked(sheet) > 0
    assert beneath.height == CAPTION_GAP + LINE_HEIGHT + MARGIN


def test_a_panel_without_its_original_leaves_room_for_it(plain: Lettering) -> None:
    panels = [Panel([flat(50)], original=flat(10)), Panel([flat(60)])]
    sheet = draw_sheet(panels, columns=1, lettering=plain)
    top = MARGIN + 128 + CAPTION_GAP + LINE_HEIGHT + GAP
    assert whole(sheet, MARGIN + 128 + APART, top, 60)
    assert (np.asarray(sheet)[top:, : MARGIN + 128] == BACKGROUND).all()


def test_captions_are_drawn_beneath(plain: Lettering) -> None:
    assert inked(draw_sheet([Panel([flat(255)])], lettering=plain)) == 0
    sheet = draw_sheet([Panel([flat(255)], "a red apple", "key")], lettering=plain)
    assert inked(sheet.crop((0, MARGIN + 128, *sheet.size))) == inked(sheet) > 0
    assert inked(sheet, GREY) == 0


@pytest.mark.parametrize("caption", ["", " ", "りんご", "a 🍎", "\ud800\0\x1b"])
def test_the_key_in_grey_stands_for_a_caption_that_cannot_be_drawn(plain: Lettering, caption: str) -> None:
    sheet = draw_sheet([Panel([flat(255)], caption, "photo-1")], lettering=plain)
    assert inked(sheet) == 0
    assert inked(sheet.crop((0, MARGIN + 128, *sheet.size)), GREY) == inked(sheet, GREY) > 0
    assert sheet.tobytes() == draw_sheet([Panel([flat(255)], "", "photo-1")], lettering=plain).tobytes()


def test_a_key_that_cannot_be_drawn_either_is_written_in_ascii(plain: Lettering) -> None:
    sheet = draw_sheet([Panel([flat(255)], "", "りんご")], lettering=plain)
    expected = draw_sheet([Panel([flat(255)], "", "\\u308a\\u3093\\u3054")], lettering=plain)
    assert sheet.tobytes() == expected.tobytes()
    assert inked(sheet, GREY) > 0


def test_notes_stand_under_their_images_in_grey(plain: Lettering) -> None:
    panel = Panel([flat(255, note="#1 CLIP 0.300"), flat(255, note="#2 CLIP 0.200")], "a")
    sheet = draw_sheet([panel], lettering=plain)
    below = MARGIN + 128 + CAPTION_GAP
    notes = sheet.crop((0, below, sheet.width, below + LINE_HEIGHT))
    middle = MARGIN + 128 + SEAM // 2
    assert inked(notes.crop((0, 0, middle, LINE_HEIGHT)), GREY) > 0
    assert inked(notes.crop((middle, 0, *notes.size)), GREY) > 0
    assert inked(sheet.crop((0, below + LINE_HEIGHT, *sheet.size))) > 0


def test_the_title_stands_at_the_top_left(plain: Lettering) -> None:
    sheet = draw_sheet([Panel([flat(255)])], "48 of 287", lettering=plain)
    without = draw_sheet([Panel([flat(255)])], lettering=plain)
    assert sheet.height - without.height == LINE_HEIGHT + GAP // 2
    assert inked(sheet.crop((MARGIN, MARGIN, 128, MARGIN + LINE_HEIGHT)), GREY) == inked(sheet, GREY) > 0


def test_the_title_says_why_keys_stand_for_captions(plain: Lettering) -> None:
    first, last = Panel([flat(255)], "a red apple", "k0"), Panel([flat(255)], "", "k2")
    told = draw_sheet([first, Panel([flat(255)], "りんご", "k1"), last], "3 of 3", lettering=plain)
    without = [first, Panel([flat(255)], "", "k1"), last]
    assert told.tobytes() == draw_sheet(without, f"3 of 3; {NO_FONT}", lettering=plain).tobytes()
    assert told.tobytes() != draw_sheet(without, "3 of 3", lettering=plain).tobytes()


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_reduced() -> None:
    sizes = {(64, 64): (128, 128), (60, 30): (180, 90), (200, 256): (200, 256), (1000, 500): (LARGEST_CELL, 128)}
    assert {size: fitted(Image.new("RGB", size)).size for size in sizes} == sizes
    assert fitted(Image.new("RGB", (1, 10_000))).size == (1, LARGEST_CELL)
    assert fitted(Image.new("RGB", (10, 200))).size == (10, 200)


@pytest.mark.parametrize("count", range(1, 200))
def test_sheets_are_neither_towers_nor_ribbons(count: int) -> None:
    columns = min(balanced_columns(count), count)
    assert columns >= -(-count // columns) >= columns / 5


def test_no_images_are_no_sheet() -> None:
    with pytest.raises(ValueError, match="a contact sheet of no images"):
        draw_sheet([])

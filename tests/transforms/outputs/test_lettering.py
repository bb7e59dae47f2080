"""Captions in any script: each part in a font that has it, in the order in which it is read, or not covered at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont, features

from tests.support.tiny_font import write_font
from transforms.outputs.fonts import FontFile, Fonts
from transforms.outputs.lettering import (
    ELLIPSIS,
    LONGEST,
    Lettering,
    Run,
    clusters,
    in_visual_order,
    is_emoji,
    is_right_to_left,
)

ARABIC, HEBREW = "تفاحة حمراء", "תפוח אדום"
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@pytest.fixture(scope="module")
def plain() -> Lettering:
    """Without any font but Pillow's own."""
    return Lettering(Fonts(14, []))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Lettering:
    folder = tmp_path_factory.mktemp("fonts")
    sets = {"Kana": "りんごé abcdefgh\u3000", "Hebrew": HEBREW, "Emoji": "🍎👍🏽"}
    return Lettering(Fonts(14, [FontFile(str(write_font(folder / f"{name}.ttf", has))) for name, has in sets.items()]))


def drawn(letters: Lettering, line: str, right_to_left: bool = False) -> np.ndarray:
    sheet = Image.new("RGB", (300, 30), WHITE)
    letters.draw(sheet, line, 150, 20, BLACK, right_to_left)
    return np.asarray(sheet)


def here(text: str) -> Lettering:
    """With the fonts of this machine; skips if none has a text."""
    found = Lettering(Fonts(14))
    if not found.covers(text):
        pytest.skip(f"no font here has {text}")
    return found


def test_each_part_is_in_a_font_that_has_it(letters: Lettering) -> None:
    line = "a zoo りんご 🍎"
    assert letters.covers(line)
    runs = letters.runs(line)
    assert [run.text for run in runs] == ["a zoo ", "りんご ", "🍎"]
    assert [run.font.font.getname()[0] == "Aileron" for run in runs] == [True, False, False]
    assert (drawn(letters, line) == 0).any()


def test_a_word_is_not_made_of_two_fonts(letters: Lettering) -> None:
    """Pillow's own font lacks é."""
    runs = letters.runs("faced é")
    assert len(runs) == 1
    assert runs[0].font is letters.fonts.first_with("é")


def test_what_no_font_has_is_not_covered_and_not_drawn_as_a_box(plain: Lettering, letters: Lettering) -> None:
    assert plain.covers("a red apple")
    assert not plain.covers("りんご")
    assert not plain.covers("a 🍎")
    assert not letters.covers("りんごと")
    assert (drawn(plain, "りんご") == 255).all()
    assert (drawn(plain, "aりんごb") == drawn(plain, "ab")).all()


def test_signs_that_are_not_seen_draw_nothing(plain: Lettering) -> None:
    assert plain.covers("a\u200d\ufe0fb")
    assert (drawn(plain, "a\u200d\ufe0fb") == drawn(plain, "ab")).all()


def test_letters_are_composed_before_a_font_is_looked_for(letters: Lettering) -> None:
    assert letters.wrap("cafe\u0301", 200, 1) == ["café"]


def test_a_sign_with_all_that_modifies_it_stays_together() -> None:
    parts = ["👨\u200d👩\u200d👧", "x", "👍🏽", "🇫🇷", "🇩🇪", "1\ufe0f\u20e3", "e\u0302", "❤\ufe0f", "👍"]
    assert list(clusters("".join(parts))) == parts
    assert list(map(is_emoji, parts)) == [True, False, True, True, True, True, False, True, True]
    assert not is_emoji("❤\ufe0e")
    assert list(clusters("")) == []


def test_lines_break_between_words_and_between_signs_of_scripts_without_blanks(letters: Lettering) -> None:
    assert letters.wrap("large orange diamond on white", 128, 3) == ["large orange", "diamond on white"]
    assert letters.wrap("aa りんごりんご bb", 60, 3) == ["aa り", "んごりん", "ご bb"]


@pytest.mark.parametrize("caption", ["a rather long caption " * 50, "x" * 100_000, "wide " + "w" * 500, "りんご" * 99])
def test_long_captions_end_in_an_ellipsis_within_the_width(letters: Lettering, caption: str) -> None:
    lines = letters.wrap(caption, 128, 3)
    assert len(lines) == 3
    assert lines[-1].endswith(ELLIPSIS)
    assert all(letters.length(line) <= 128 for line in lines)
    assert sum(map(len, lines)) <= LONGEST


@pytest.mark.parametrize("caption", ["", " \n\t ", "\ud800\0\x1b"])
def test_nothing_to_see_is_no_line(letters: Lettering, caption: str) -> None:
    assert letters.wrap(caption, 128, 3) == []


def test_runs_stand_in_the_order_in_which_they_are_seen(letters: Lettering) -> None:
    font = letters.fonts.default
    one, two, three, four = Run("1", font), Run("2", font, True), Run("3", font, True), Run("4", font)
    assert in_visual_order([one, two, three, four]) == [one, three, two, four]
    assert in_visual_order([one, two, three, four], right_to_left=True) == [four, three, two, one]
    assert in_visual_order([two, one, four, three], right_to_left=True) == [three, one, four, two]
    assert in_visual_order([]) == []


def test_a_text_has_the_direction_of_its_first_letter() -> None:
    assert [is_right_to_left(text) for text in (HEBREW, f"1 {ARABIC} a", f"a {ARABIC}", "1 🍎", "")] == [
        *(True, True, False, False, False)
    ]


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no Raqm")
def test_hebrew_begins_at_the_right_and_latin_words_in_it_do_not(letters: Lettering) -> None:
    runs = letters.runs("אדום ab cd פוח", right_to_left=True)
    assert [run.text for run in runs] == ["אדום ", "ab cd", " ", "פוח"]
    assert [run.right_to_left for run in runs] == [True, False, True, True]
    assert [run.text for run in in_visual_order(runs, True)] == ["פוח", " ", "ab cd", "אדום "]


@pytest.mark.parametrize("caption", [ARABIC, HEBREW, "हिन्दी", "ภาษาไทย"])
def test_without_raqm_scripts_that_it_joins_and_orders_are_not_covered(tmp_path: Path, caption: str) -> None:
    """Every letter is in the font: basic layout would draw them apart, or from left to right."""
    fonts = Fonts(14, [FontFile(str(write_font(tmp_path / "All.ttf", caption)))])
    assert not Lettering(fonts, shapes=False).covers(caption)
    assert Lettering(fonts, shapes=False).covers("a red apple")


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no Raqm")
def test_arabic_letters_are_joined() -> None:
    letters = here(ARABIC)
    (run,) = letters.runs(ARABIC, True)
    apart = sum(run.font.font.getlength(letter) for letter in ARABIC)
    assert run.right_to_left
    assert run.length < 0.95 * apart


@pytest.mark.parametrize("caption", ["赤いりんごと青い背景", "红色的苹果", "빨간 사과"])
def test_chinese_japanese_and_korean_are_drawn(caption: str) -> None:
    assert (drawn(here(caption), caption) < 100).any()


def test_emoji_are_in_colour_and_no_larger_than_a_line() -> None:
    letters = here("🍎")
    if not letters.runs("🍎")[0].font.of_bitmaps:
        pytest.skip("the font for emoji here has no bitmaps")
    pixels = drawn(letters, "🍎").astype(int)
    red = (pixels[..., 0] - pixels[..., 2]) > 100
    rows, columns = np.nonzero(red)
    assert 30 < red.sum() < 400
    assert rows.max() - rows.min() < 20
    assert columns.max() - columns.min() < 20


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no Raqm")
def test_joined_emoji_are_one() -> None:
    family = "👨\u200d👩\u200d👧"
    letters = here(family)
    assert letters.length(family) < 1.5 * letters.length("👨")


def test_no_caption_that_is_covered_holds_a_box() -> None:
    """Whatever fonts are here: every character is drawn otherwise than one that does not exist."""
    letters = Lettering(Fonts(14))
    some = [
        "a red apple",
        "café",
        "赤い",
        "تفاحة",
        "תפוח",
        "हिन्दी",
        "🍎 🫠 👍🏽",
        "красное",
        "★ → √",
        "𓀀",
        "\ue000",
        "\u0378",
    ]
    assert letters.covers(some[0])
    for caption in filter(letters.covers, some):
        for run in letters.runs(caption):
            shown = [letter for letter in run.text if letter.isprintable() and not letter.isspace()]
            assert all(run.font.has(letter) for letter in shown if not is_emoji(letter)), (caption, run.text)
    assert isinstance(letters.fonts.default.font, ImageFont.FreeTypeFont)

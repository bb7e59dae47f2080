from __future__ import annotations

import numpy as np
import pytest

from examples.emoji import caption_variety
from examples.emoji.combinations import BACKGROUNDS, background_colours, colour_of
from examples.emoji.compose import canonical, compose_images
from examples.emoji.contrast import MIN_CONTRAST, SEEN_CONTRAST, all_contrasts
from examples.emoji.evaluate import Judge
from examples.emoji.evaluate_phrasings import judged, summary
from examples.emoji.held_out_phrasings import (
    EACH,
    NEW_ORDER,
    NO_BACKGROUND,
    TEMPLATES,
    Phrase,
    acceptable,
    phrase,
    phrases,
)
from tests.examples.phrasing_words import FIXED, skeleton
from tests.examples.synthetic_glyphs import synthetic_glyphs

GLYPHS = synthetic_glyphs()
CONTRASTS = all_contrasts(GLYPHS)
COLOURS = list(BACKGROUNDS)


@pytest.mark.parametrize("template", NEW_ORDER)
def test_a_held_out_order_is_none_of_the_fixed_ones(template: str) -> None:
    assert skeleton(template) not in {skeleton(text) for text in FIXED}
    assert skeleton("{b} background: {n}") in {skeleton(text) for text in FIXED}


def test_there_are_two_hundred_prompts_half_of_them_of_coloured_things() -> None:
    made = phrases(TEMPLATES, GLYPHS.names, CONTRASTS)
    assert len(made) == 200 == EACH * len(TEMPLATES)
    assert made == phrases(TEMPLATES, GLYPHS.names, CONTRASTS)
    assert sum(colour_of(GLYPHS.names[one.glyph]) is not None for one in made) == 100
    for one in made:
        assert (one.background < 0) == (one.template in NO_BACKGROUND)
        if one.background >= 0:
            assert CONTRASTS[one.glyph, one.background] >= MIN_CONTRAST
            assert colour_of(GLYPHS.names[one.glyph]) != COLOURS[one.background]
            assert COLOURS[one.background] in one.prompt.lower()


def test_a_phrase_is_filled_with_articles_plurals_and_case() -> None:
    assert phrase("{n} over a plain {b} backdrop", "rocket", "blue") == "rocket over a plain blue backdrop"
    assert phrase("{a} painted on {ab} canvas", "owl", "orange") == "an owl painted on an orange canvas"
    assert phrase("some {p}. {b} wallpaper", "red apple", "blue") == "some red apples. blue wallpaper"
    assert phrase("{n} in front of {ab} curtain!!!", "owl", "orange") == "OWL IN FRONT OF AN ORANGE CURTAIN!!!"
    assert phrase("my favourite: {n}!", "owl", "") == "my favourite: owl!"


@pytest.mark.parametrize(
    ("thing", "several"),
    [("a fox", "foxes"), ("a strawberry", "strawberries"), ("a monkey", "monkeys"), ("grapes", "grapes"),
     ("a house with garden", "house with garden"), ("a blue book", "blue books")],
)  # fmt: skip
def test_plurals(thing: str, several: str) -> None:
    assert caption_variety.plural(thing) == several


def test_contrast_is_that_of_each_glyph_on_each_background() -> None:
    yellow = GLYPHS.names.index("yellow disc")
    assert CONTRASTS.shape == (len(GLYPHS.keys), len(COLOURS))
    assert CONTRASTS[yellow, COLOURS.index("yellow")] < MIN_CONTRAST
    assert CONTRASTS[yellow, COLOURS.index("black")] > SEEN_CONTRAST


def test_any_background_will_do_where_none_is_named_but_one_that_hides_the_glyph() -> None:
    yellow = GLYPHS.names.index("yellow disc")
    unnamed = acceptable(CONTRASTS, Phrase("{n}", "yellow disc", yellow, -1))
    assert not unnamed[COLOURS.index("yellow")]
    assert unnamed[COLOURS.index("blue")]
    named = acceptable(CONTRASTS, Phrase("{n} on {b}", "yellow disc on blue", yellow, COLOURS.index("blue")))
    assert np.flatnonzero(named).tolist() == [COLOURS.index("blue")]


def test_images_are_judged_over_the_background_that_is_asked_or_else_shown() -> None:
    red, blue, yellow = (GLYPHS.names.index(f"{colour} disc") for colour in ("red", "blue", "yellow"))
    on_blue, on_black = COLOURS.index("blue"), COLOURS.index("black")
    pairs = np.array([[red, on_blue], [blue, on_black], [yellow, on_black], [yellow, COLOURS.index("yellow")]])
    images, _ = compose_images(GLYPHS, pairs, canonical(4))
    said = [Phrase("", "", red, on_blue), Phrase("", "", yellow, -1)]
    glyph, background = judged(Judge(GLYPHS), images.reshape(2, 2, *images.shape[1:]), said, CONTRASTS)
    assert glyph[0].tolist() == [True, False]
    assert background.tolist() == [[True, False], [True, False]]
    assert glyph[1, 0]


def test_figures_tell_one_image_the_best_and_any_apart() -> None:
    glyph = np.array([[True, False], [True, True]])
    background = np.array([[True, True], [False, True]])
    found = summary(glyph, background, np.array([1, 0]))
    assert found == {
        "prompts": 2, "glyph": 0.75, "background": 0.75, "both": 0.5, "glyph_of_the_best_by_clip": 0.5,
        "background_of_the_best_by_clip": 0.5, "both_of_the_best_by_clip": 0.0, "both_of_any": 1.0,
    }  # fmt: skip


def test_a_plain_image_shows_its_colour() -> None:
    plain = np.broadcast_to(background_colours()[:, None, None], (10, 64, 64, 3))
    assert Judge(GLYPHS).background(plain).tolist() == list(range(10))

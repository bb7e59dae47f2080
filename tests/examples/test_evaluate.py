from __future__ import annotations

import numpy as np
import pytest

from examples.emoji.combinations import BACKGROUNDS, background_colours
from examples.emoji.compose import canonical, compose_images
from examples.emoji.evaluate import Judge, choose_pairs, shares
from tests.examples.synthetic_glyphs import synthetic_glyphs

GLYPHS = synthetic_glyphs()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(GLYPHS)


def test_pairs_are_every_background_of_the_chosen_glyphs_with_a_fifth_held_out() -> None:
    pairs = choose_pairs(GLYPHS, 3)
    assert len(pairs.prompts) == 3 * len(BACKGROUNDS)
    assert (~pairs.seen).sum() == 3 * 2
    assert all(f"{name} background" in " ".join(pairs.prompts) for name in BACKGROUNDS)


def test_true_images_are_judged_right(judge: Judge) -> None:
    pairs = choose_pairs(GLYPHS, 6)
    found = shares(judge, pairs.originals, pairs)
    assert found["glyph"] == found["glyph_held_out"] == found["background"] == 1.0


def test_another_glyph_on_the_right_background_is_a_wrong_glyph_only(judge: Judge) -> None:
    pairs = choose_pairs(GLYPHS, 6)
    others = np.stack([(pairs.indices[:, 0] + 1) % 6, pairs.indices[:, 1]], 1)
    shown, _ = compose_images(GLYPHS, others, canonical(len(others)))
    assert not judge.right_glyph(shown, pairs.indices)[pairs.visible].any()
    assert judge.right_background(shown, pairs.indices).all()


def test_a_plain_image_of_another_colour_has_the_wrong_background(judge: Judge) -> None:
    indices = np.array([[0, 2]])
    shown = np.broadcast_to(background_colours()[5], (1, 64, 64, 3))
    assert not judge.right_background(shown, indices).any()


def test_yellow_on_yellow_is_not_judged() -> None:
    pairs = choose_pairs(GLYPHS, 6)
    yellow_disc = GLYPHS.names.index("yellow disc")
    yellow = list(BACKGROUNDS).index("yellow")
    [row] = np.flatnonzero((pairs.indices == (yellow_disc, yellow)).all(1))
    assert not pairs.visible[row]

from __future__ import annotations

import numpy as np
import pytest

from examples.emoji.combinations import BACKGROUNDS
from examples.emoji.compose import MAX_SHIFT, Placement, canonical, compose_images, jittered, over
from examples.emoji.glyphs import SIDES, FontMissing, find_font, render_all
from tests.examples.synthetic_glyphs import synthetic_glyphs

GLYPHS = synthetic_glyphs()
BLUE = list(BACKGROUNDS).index("blue")


def test_an_image_is_the_glyph_in_the_middle_and_the_background_around() -> None:
    images, alpha = compose_images(GLYPHS, np.array([[0, BLUE]]), canonical(1))
    assert images.shape == (1, 64, 64, 3)
    assert images.dtype == np.uint8
    assert tuple(images[0, 0, 0]) == BACKGROUNDS["blue"]
    assert tuple(images[0, 32, 32]) == (230, 40, 40)
    assert alpha[0, 32, 32] == 255
    assert alpha[0, 0, 0] == 0


def test_half_covered_pixels_are_half_way_between() -> None:
    half_red = np.array([100, 0, 0, 128], dtype=np.uint8).reshape(1, 1, 1, 4)  # premultiplied
    mixed = over(half_red, np.array([[0, 200, 0]], dtype=np.uint8))
    assert tuple(mixed[0, 0, 0]) == (100, 100, 0)


def test_a_shift_moves_the_glyph_and_cuts_what_leaves_the_image() -> None:
    pairs = np.array([[5, BLUE], [5, BLUE]])
    at = Placement(side=np.array([60, 60]), dx=np.array([0, 4]), dy=np.array([0, -4]))
    images, _ = compose_images(GLYPHS, pairs, at)
    assert np.array_equal(images[1, :58, 6:], images[0, 4:62, 2:60])


def test_jitter_moves_the_asked_share_within_its_bounds() -> None:
    at = jittered(np.random.default_rng(0), 4000, share=0.3)
    still = (at.side == 56) & (at.dx == 0) & (at.dy == 0)
    assert 0.65 < still.mean() < 0.75
    assert set(at.side) == set(SIDES)
    assert max(abs(at.dx).max(), abs(at.dy).max()) == MAX_SHIFT


def test_the_same_seed_gives_the_same_placements() -> None:
    first, again = (jittered(np.random.default_rng([3, 14]), 16, 0.5) for _ in range(2))
    assert np.array_equal(first.side, again.side)
    assert np.array_equal(first.dx, again.dx)


def test_the_font_gives_a_rocket_and_leaves_out_what_it_lacks() -> None:
    try:
        font = find_font()
    except FontMissing as error:
        pytest.skip(str(error))
    glyphs = render_all({"\U0001f680": "rocket", "\U0010fffe": "nothing"}, font)
    assert glyphs.keys == ["1f680"]
    assert glyphs.pixels[56].shape == (1, 56, 56, 4)
    assert 0.2 < (glyphs.pixels[56][0, ..., 3] > 127).mean() < 0.8
    outside = glyphs.pixels[56][glyphs.pixels[56][..., 3] == 0]
    assert outside[:, :3].max() < 8  # premultiplied: no colour where nothing is, but for Lanczos ringing

from __future__ import annotations

import numpy as np
import pytest

from examples.emoji.combinations import BACKGROUNDS, background_colours
from examples.emoji.compose import canonical, compose_images
from examples.emoji.contrast import contrast
from examples.emoji.glyphs import GlyphSet
from examples.emoji.measures import block_average, psnr
from examples.emoji.recognition import classes, nearest_glyphs, twins
from examples.emoji.sheets import contact_sheet
from tests.examples.synthetic_glyphs import synthetic_glyphs

GLYPHS = synthetic_glyphs()


def test_psnr_of_a_known_error_is_the_textbook_value() -> None:
    original = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    output = original.copy()
    output[1] = 51  # a fifth of the peak everywhere
    assert psnr(original, output) == pytest.approx([99.0, 20 * np.log10(5)])


def test_psnr_inside_the_mask_ignores_everything_outside() -> None:
    original = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    output = np.full_like(original, 255)
    alpha = np.zeros((1, 4, 4), dtype=np.uint8)
    output[0, :2], alpha[0, :2] = 51, 200
    assert psnr(original, output, alpha) == pytest.approx(20 * np.log10(5))


def test_block_average_replaces_each_block_by_its_mean() -> None:
    image = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    image[0, :8, :8] = 100
    image[0, :4, 8:] = 200
    averaged = block_average(image, 8)
    assert averaged[0, 3, 3].tolist() == [100] * 3
    assert averaged[0, 7, 15].tolist() == [100] * 3
    assert averaged[0, 15, 0].tolist() == [0] * 3


def test_contrast_is_the_distance_to_the_background_inside_the_mask() -> None:
    image = np.full((1, 4, 4, 3), 60, dtype=np.uint8)
    alpha = np.zeros((1, 4, 4), dtype=np.uint8)
    alpha[0, 1] = 255
    image[0, 1] = 100
    assert contrast(image, alpha, np.array([[60, 60, 60]], dtype=np.uint8)) == pytest.approx([40.0])


def test_the_nearest_glyph_is_found_over_the_asked_background() -> None:
    pairs = np.array([[g, b] for g in range(len(GLYPHS.keys)) for b in (0, 1, 7)])
    images, _ = compose_images(GLYPHS, pairs, canonical(len(pairs)))
    noise = np.random.default_rng(0).normal(0, 20, images.shape)
    noisy = np.clip(images + noise, 0, 255).astype(np.uint8)
    assert nearest_glyphs(noisy, pairs[:, 1], GLYPHS).tolist() == pairs[:, 0].tolist()


def test_two_glyphs_that_hardly_differ_are_twins_and_one_class() -> None:
    double = {side: np.concatenate([pixels, pixels[2:3]]) for side, pixels in GLYPHS.pixels.items()}
    copied = double[56][6]
    copied[20:24, 20:24, :3] //= 2
    with_copy = GlyphSet([*GLYPHS.keys, "1f700"], [*GLYPHS.names, "blue disc, worn"], double)
    found = twins(with_copy)
    assert [(i, j) for i, j, _ in found] == [(2, 6)]
    assert found[0][2] > 25
    assert classes(7, found).tolist() == [0, 1, 2, 3, 4, 5, 2]


def test_twins_of_twins_are_one_class() -> None:
    assert classes(5, [(3, 4, 30.0), (1, 3, 30.0)]).tolist() == [0, 1, 2, 1, 1]


def test_a_contact_sheet_has_originals_above_reconstructions() -> None:
    originals = np.stack([np.full((8, 8, 3), 10 * n, dtype=np.uint8) for n in range(3)])
    sheet = contact_sheet(originals, originals + 1, columns=2, scale=1)
    assert sheet.shape == (2 * 16 + 4, 16, 3)
    assert sheet[0, 8, 0] == 10
    assert sheet[8, 8, 0] == 11
    assert sheet[20, 0, 0] == 20
    assert sheet[28, 0, 0] == 21
    assert (sheet[20:, 8:] == 255).all()


def test_the_colours_are_in_the_order_of_their_names() -> None:
    assert background_colours()[list(BACKGROUNDS).index("red")].tolist() == list(BACKGROUNDS["red"])

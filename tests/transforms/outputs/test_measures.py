"""PSNR, SSIM and perplexity against scikit-image 0.26's values and against the definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transforms.outputs.measures import perplexity, psnr, ssim

# Height, width and step of a pair, and what `structural_similarity(..., channel_axis=2, data_range=255,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False)` and `peak_signal_noise_ratio` of scikit-image give.
SCIKIT_IMAGE = [
    (11, 11, 8, 0.9774679462869941, 34.361717547063904),
    (16, 16, 20, 0.9296495085443017, 26.843833034750865),
    (40, 24, 60, 0.8468011719080533, 18.286586961929665),
    (64, 64, 3, 0.9976735818184537, 42.147473280176854),
]


def pair(height: int, width: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3], and one that differs by up to `step`."""
    i, j, c = np.ogrid[:height, :width, :3]
    image = (7 * i + 13 * j + 29 * c + (i * j) % 17) % 256
    other = np.clip(image + (i * 5 + j * 3 + c * 11) % (2 * step + 1) - step, 0, 255)
    return image.astype(np.uint8), other.astype(np.uint8)


def plain_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM by its definition: one window of 11 x 11 after the other."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    found = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            for channel in range(3):
                x, y = (image[top : top + 11, left : left + 11, channel].astype(float) for image in (one, other))
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                covariance = (weights * (x - mx) * (y - my)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize(("height", "width", "step", "similar", "noise"), SCIKIT_IMAGE)
def test_both_are_those_of_scikit_image(height: int, width: int, step: int, similar: float, noise: float) -> None:
    one, other = pair(height, width, step)
    assert ssim(one, other) == pytest.approx(similar, abs=1e-9)
    assert psnr(one, other) == pytest.approx(noise, abs=1e-9)


@pytest.mark.parametrize("side", [11, 14])
def test_similarity_is_that_of_its_definition(side: int) -> None:
    one, other = pair(side, side + 2, 30)
    assert ssim(one, other) == pytest.approx(plain_ssim(one, other), abs=1e-9)


def test_equal_images_have_no_noise_and_all_similarity() -> None:
    one, _ = pair(12, 12, 1)
    assert (psnr(one, one.copy()), ssim(one, one.copy())) == (None, 1.0)


def test_black_against_white_is_the_worst() -> None:
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert psnr(black, white) == 0
    assert ssim(black, white) == pytest.approx(6.5025 / (255**2 + 6.5025), rel=1e-9)


@pytest.mark.parametrize(("height", "width"), [(10, 64), (64, 10), (1, 1)])
def test_images_smaller_than_the_window_have_no_similarity(height: int, width: int) -> None:
    one, other = pair(height, width, 5)
    assert ssim(one, other) is None
    assert psnr(one, other) is not None


def test_perplexity_counts_codes_by_how_evenly_they_are_used() -> None:
    assert perplexity(np.array([5, 0, 5, 5, 0, 5])) == pytest.approx(4)
    assert perplexity(np.array([7, 0])) == 1
    assert perplexity(np.array([3, 1])) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
    assert perplexity(np.zeros(4, int)) is None

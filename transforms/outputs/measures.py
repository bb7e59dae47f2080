"""How near an image is to its original, and how evenly codes are used: PSNR, SSIM, perplexity."""

from __future__ import annotations

import math

import numpy as np

PEAK = 255
SIGMA = 1.5  # of SSIM's window, which ends after 3.5 of them: 11 x 11 pixels
TRUNCATE = 3.5
BORDER = 5  # pixels on each side for which the window would leave the image
WINDOW = 2 * BORDER + 1
STABLE = ((0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2)  # K1 and K2 of the paper


def psnr(original: np.ndarray, made: np.ndarray) -> float | None:
    """PSNR in dB of two images uint8 [H, W, 3]; None if they are equal."""
    difference = original.astype(np.int32) - made
    error = int(np.square(difference).sum(dtype=np.int64))
    return 10 * math.log10(PEAK**2 * difference.size / error) if error else None


def ssim(original: np.ndarray, made: np.ndarray) -> float | None:
    """SSIM of two images uint8 [H, W, 3], the mean over their channels; None if they are smaller than its window.

    Wang et al. 2004, with a Gaussian window and the covariance of the whole window, over the pixels where the window
    lies inside the image: scikit-image's `structural_similarity(..., gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`.
    """
    if min(original.shape[:2]) < WINDOW:
        return None
    channels = range(original.shape[2])
    return float(
        np.mean([_ssim(original[..., c].astype(np.float64), made[..., c].astype(np.float64)) for c in channels])
    )


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    mean_x, mean_y = _blurred(x), _blurred(y)
    both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _blurred(x * y) - both
    variances = _blurred(x * x + y * y) - squares
    first, second = STABLE
    return float(np.mean((2 * both + first) * (2 * covariance + second) / ((squares + first) * (variances + second))))


def _blurred(image: np.ndarray) -> np.ndarray:
    """float64 [H, W] under the window, where that lies inside the image."""
    from scipy.ndimage import gaussian_filter  # slow to import

    inside = slice(BORDER, -BORDER)
    return gaussian_filter(image, SIGMA, truncate=TRUNCATE)[inside, inside]


def perplexity(counts: np.ndarray) -> float | None:
    """How many codes, used equally often, would be as varied as codes used so often: int [K] -> 1 to K; None if none
    is used."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else None

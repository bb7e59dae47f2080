"""Measures of reconstructions: PSNR, and a baseline for it."""

from __future__ import annotations

import numpy as np

MASK_ALPHA = 128  # a pixel is inside the glyph where it is at least half covered


def psnr(originals: np.ndarray, outputs: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """PSNR in dB of each image, float64 [N], peak 255; only where `alpha` >= MASK_ALPHA if given.

    `originals`, `outputs`: uint8 or float [N, H, W, 3]; `alpha`: uint8 [N, H, W]. An equal pair counts as 99 dB.
    """
    square = (originals.astype(np.float64) - outputs.astype(np.float64)) ** 2
    weight = np.ones(square.shape[:3]) if alpha is None else (alpha >= MASK_ALPHA).astype(np.float64)
    error = (square.sum(-1) * weight).sum((1, 2)) / (3 * np.maximum(weight.sum((1, 2)), 1))
    return 10 * np.log10(255.0**2 / np.maximum(error, 255.0**2 / 10**9.9))


def block_average(images: np.ndarray, side: int) -> np.ndarray:
    """Each side x side block replaced by its mean colour, the baseline for a code per block.

    uint8 [N, H, W, 3] -> float64 of the same shape.
    """
    n, h, w, c = images.shape
    means = images.reshape(n, h // side, side, w // side, side, c).astype(np.float64).mean((2, 4))
    return means.repeat(side, 1).repeat(side, 2)

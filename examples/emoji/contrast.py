"""Which glyphs can be seen on which backgrounds: a yellow hand on yellow is no test of a network."""

from __future__ import annotations

import numpy as np

from examples.emoji.measures import MASK_ALPHA

MIN_CONTRAST = 32.0  # levels of 255, root mean square over the glyph's mask


def contrast(images: np.ndarray, alpha: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """How far the glyph's pixels are from the background: levels, root mean square inside the mask, float64 [N].

    `images` uint8 [N, H, W, 3], `alpha` uint8 [N, H, W], `colours` uint8 [N, 3].
    """
    inside = (alpha >= MASK_ALPHA).astype(np.float64)
    square = ((images.astype(np.float64) - colours[:, None, None, :]) ** 2).mean(-1)
    return np.sqrt((square * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1))

"""Which glyphs can be seen on which backgrounds: a yellow hand on yellow is no test of a network."""

from __future__ import annotations

import numpy as np

from examples.emoji.combinations import background_colours
from examples.emoji.compose import canonical, compose_images
from examples.emoji.glyphs import GlyphSet
from examples.emoji.measures import MASK_ALPHA

MIN_CONTRAST = 32.0  # levels of 255, root mean square over the glyph's mask: below it a glyph cannot be judged
SEEN_CONTRAST = 60.0  # above it a glyph can be seen well: a red apple has 47 on red, 55 on orange and 89 on yellow
CLEAR_CONTRAST = 75.0  # what training takes for clear


def contrast(images: np.ndarray, alpha: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """How far the glyph's pixels are from the background: levels, root mean square inside the mask, float64 [N].

    `images` uint8 [N, H, W, 3], `alpha` uint8 [N, H, W], `colours` uint8 [N, 3].
    """
    inside = (alpha >= MASK_ALPHA).astype(np.float64)
    square = ((images.astype(np.float64) - colours[:, None, None, :]) ** 2).mean(-1)
    return np.sqrt((square * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1))


def all_contrasts(glyphs: GlyphSet) -> np.ndarray:
    """The contrast of every glyph on every background, float64 [G, B]."""
    columns = []
    every = np.arange(len(glyphs.keys))
    for b, colour in enumerate(background_colours()):
        images, alpha = compose_images(glyphs, np.stack([every, np.full_like(every, b)], 1), canonical(len(every)))
        columns.append(contrast(images, alpha, np.broadcast_to(colour, (len(every), 3))))
    return np.stack(columns, 1)

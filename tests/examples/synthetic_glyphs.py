"""Glyphs that need no font: discs of different colours and sizes, under real code points."""

from __future__ import annotations

import numpy as np
from PIL import Image

from examples.emoji.glyphs import RENDER_SIDE, SIDES, GlyphSet, premultiplied

COLOURS = ((230, 40, 40), (40, 200, 60), (60, 60, 240), (250, 240, 90), (20, 20, 20), (240, 120, 220))


def disc(colour: tuple[int, int, int], radius: float) -> Image.Image:
    """A disc in the middle of a transparent RGBA square as large as a rendered glyph."""
    y, x = np.mgrid[:RENDER_SIDE, :RENDER_SIDE] - (RENDER_SIDE - 1) / 2
    pixels = np.zeros((RENDER_SIDE, RENDER_SIDE, 4), dtype=np.uint8)
    pixels[x**2 + y**2 <= radius**2] = (*colour, 255)
    return Image.fromarray(pixels)


def synthetic_glyphs() -> GlyphSet:
    """Six glyphs, none a twin of another."""
    images = [disc(colour, 30 + 6 * n) for n, colour in enumerate(COLOURS)]
    return GlyphSet(
        keys=[f"{0x1F600 + n:x}" for n in range(len(images))],
        names=["red disc", "green disc", "blue disc", "yellow disc", "olive", "grapes"],
        pixels={side: np.stack([premultiplied(image, side) for image in images]) for side in SIDES},
    )

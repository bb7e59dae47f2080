"""Glyphs on plain backgrounds: batches of images with their masks, from arrays that are in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.emoji.combinations import background_colours
from examples.emoji.glyphs import CANONICAL_SIDE, SIDES, GlyphSet

RESOLUTION = 64
MAX_SHIFT = 4  # pixels, of a jittered image, each way


@dataclass(frozen=True)
class Placement:
    """Where each glyph of a batch stands: side in pixels, and shift from the centre; int64 [N] each."""

    side: np.ndarray
    dx: np.ndarray
    dy: np.ndarray


def canonical(count: int) -> Placement:
    """Centred, one size: how captioned images look."""
    zero = np.zeros(count, dtype=np.int64)
    return Placement(np.full(count, CANONICAL_SIDE, dtype=np.int64), zero, zero)


def jittered(rng: np.random.Generator, count: int, share: float) -> Placement:
    """`share` of the images (in expectation) with a random side and shift, the others canonical."""
    moved = rng.random(count) < share
    side = np.where(moved, rng.choice(np.array(SIDES), count), CANONICAL_SIDE)
    dx, dy = (np.where(moved, rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, count), 0) for _ in range(2))
    return Placement(side, dx, dy)


def cover(glyphs: GlyphSet, indices: np.ndarray, at: Placement) -> np.ndarray:
    """The glyphs alone on the image plane, cut at its edges: premultiplied RGBA, uint8 [N, 64, 64, 4]."""
    out = np.zeros((len(indices), RESOLUTION, RESOLUTION, 4), dtype=np.uint8)
    for n, (g, side, dx, dy) in enumerate(zip(indices, at.side, at.dx, at.dy, strict=True)):
        x, y = (RESOLUTION - side) // 2 + dx, (RESOLUTION - side) // 2 + dy
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, RESOLUTION), min(y + side, RESOLUTION)
        out[n, y0:y1, x0:x1] = glyphs.pixels[int(side)][g, y0 - y : y1 - y, x0 - x : x1 - x]
    return out


def over(covers: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA [N, H, W, 4] over plain colours [N, 3], all uint8 -> uint8 RGB [N, H, W, 3]."""
    alpha = covers[..., 3:].astype(np.float32) / 255.0
    mixed = covers[..., :3] + (1.0 - alpha) * colours[:, None, None, :]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def compose_images(glyphs: GlyphSet, pairs: np.ndarray, at: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of glyph and background, int64 [N, 2] -> images uint8 [N, 64, 64, 3] and alpha uint8 [N, 64, 64]."""
    covers = cover(glyphs, pairs[:, 0], at)
    return over(covers, background_colours()[pairs[:, 1]]), covers[..., 3]

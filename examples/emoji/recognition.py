"""Is the right glyph still the nearest one? Reconstructions against every glyph on the same background."""

from __future__ import annotations

import numpy as np

from examples.emoji.compose import canonical, compose_images, over
from examples.emoji.glyphs import CANONICAL_SIDE, GlyphSet
from examples.emoji.measures import MASK_ALPHA

TWIN_DB = 25.0
CHUNK = 128


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32 [M, P] and [N, P] -> squared distances, float32 [M, N]."""
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T)


def nearest_glyphs(outputs: np.ndarray, backgrounds: np.ndarray, glyphs: GlyphSet) -> np.ndarray:
    """For each canonical image the glyph whose image over the same background is nearest.

    `outputs` uint8 [N, 64, 64, 3], `backgrounds` int64 [N] -> glyph indices, int64 [N].
    """
    found = np.zeros(len(outputs), dtype=np.int64)
    every = np.arange(len(glyphs.keys))
    for b in np.unique(backgrounds):
        mine = np.flatnonzero(backgrounds == b)
        candidates, _ = compose_images(glyphs, np.stack([every, np.full_like(every, b)], 1), canonical(len(every)))
        flat = candidates.reshape(len(every), -1).astype(np.float32) / 255.0
        asked = outputs[mine].reshape(len(mine), -1).astype(np.float32) / 255.0
        found[mine] = squared_distances(asked, flat).argmin(1)
    return found


def twins(glyphs: GlyphSet) -> list[tuple[int, int, float]]:
    """Pairs of glyphs above `TWIN_DB` to each other: PSNR inside the union of their masks, over grey; (i, j, dB)."""
    cover = glyphs.pixels[CANONICAL_SIDE]
    grey = np.full((len(cover), 3), 128, dtype=np.uint8)
    flat = over(cover, grey).reshape(len(cover), -1).astype(np.float32) / 255.0
    mask = (cover[..., 3] >= MASK_ALPHA).reshape(len(cover), -1)
    found = []
    for start in range(0, len(cover), CHUNK):
        rows = slice(start, start + CHUNK)
        # Over the whole plane first: outside both masks two images differ by half-covered edge pixels at most.
        near = squared_distances(flat[rows], flat) < 3 * mask.shape[1] * 10 ** (-TWIN_DB / 10)
        for i, j in zip(*np.nonzero(near), strict=True):
            i = i + start
            if i < j:
                union = np.repeat(mask[i] | mask[j], 3)
                error = ((flat[i] - flat[j])[union] ** 2).mean()
                if error < 10 ** (-TWIN_DB / 10):
                    found.append((int(i), int(j), float(-10 * np.log10(max(error, 1e-10)))))
    return found


def classes(count: int, pairs: list[tuple[int, int, float]]) -> np.ndarray:
    """The class of each glyph, int64 [count]: glyphs linked by twin pairs share the lowest index among them."""
    label = np.arange(count)
    for _ in range(count):
        before = label.copy()
        for i, j, _db in pairs:
            label[i] = label[j] = min(label[i], label[j])
        if (label == before).all():
            break
    return label

"""The image set as a table: which glyph stands on which background, and which of these training never sees.

Everything here is arithmetic on names, so that data set, training and evaluation agree without sharing a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

SPLIT_SEED = 1
HELD_OUT_PER_GLYPH = 2  # of the ten backgrounds: 20 % of the combinations, and every glyph is in both splits

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 210, 70),
    "green": (60, 150, 80),
    "blue": (50, 100, 210),
    "purple": (125, 75, 180),
    "pink": (250, 165, 195),
}


@dataclass(frozen=True)
class Split:
    """Indices into glyphs and into `BACKGROUNDS`: int64 [M, 2] each, in a fixed order."""

    train: np.ndarray
    held_out: np.ndarray


def held_out_backgrounds(glyph_key: str) -> tuple[str, ...]:
    """The backgrounds on which training never sees this glyph.

    They are those whose hash with the key is smallest, so a glyph keeps its split when others come or go.
    """

    def rank(background: str) -> bytes:
        return hashlib.blake2b(f"{SPLIT_SEED}/{glyph_key}/{background}".encode(), digest_size=8).digest()

    return tuple(sorted(BACKGROUNDS, key=rank)[:HELD_OUT_PER_GLYPH])


def split_combinations(glyph_keys: list[str]) -> Split:
    """All glyph and background pairs, in glyph then background order, in their two splits."""
    names = list(BACKGROUNDS)
    train: list[tuple[int, int]] = []
    held_out: list[tuple[int, int]] = []
    for g, key in enumerate(glyph_keys):
        hidden = held_out_backgrounds(key)
        for b, name in enumerate(names):
            (held_out if name in hidden else train).append((g, b))
    return Split(np.array(train, dtype=np.int64).reshape(-1, 2), np.array(held_out, dtype=np.int64).reshape(-1, 2))


def background_colours() -> np.ndarray:
    """The colours of `BACKGROUNDS` in order, uint8 [B, 3]."""
    return np.array(list(BACKGROUNDS.values()), dtype=np.uint8)


def colour_of(name: str) -> str | None:
    """The background whose colour a thing's name has: "red apple" -> "red"."""
    return next((word for word in name.split() if word in BACKGROUNDS), None)

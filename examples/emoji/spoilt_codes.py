"""Codes with faults like those of a generator: stray codes, another glyph half-way down, the wrong background.

The CLIP has to rank such images below whole ones, so it sees them while it learns.
"""

from __future__ import annotations

import numpy as np

from examples.emoji.clip_pairs import Pairs

MOST_STRAY = 16  # codes


def spoil(pairs: Pairs, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One spoilt version of each of `rows`, int64 [M]; what is wrong in it comes from the training split.

    Returns codes int64 [M, T] and `kept` float32 [M], the share of codes that are as they were.
    """
    trained = np.flatnonzero(pairs.train)
    by_thing = {thing: trained[pairs.thing[trained] == thing] for thing in np.unique(pairs.thing[rows])}
    by_background = {b: trained[pairs.background[trained] == b] for b in np.unique(pairs.background[rows])}
    length = pairs.codes.shape[1]
    spoilt = pairs.codes[rows]
    for row, codes in zip(rows, spoilt, strict=True):
        fault = rng.integers(3)
        if fault == 0:  # stray codes: those of other images at the same positions, where they are plausible
            positions = rng.choice(length, size=rng.integers(2, MOST_STRAY + 1), replace=False)
            codes[positions] = pairs.codes[rng.choice(trained, size=len(positions)), positions]
        else:  # from some code on, in raster order, another image
            same = by_background[pairs.background[row]] if fault == 1 else by_thing[pairs.thing[row]]
            start = rng.integers(length // 4, length - length // 8)
            codes[start:] = pairs.codes[rng.choice(same), start:]
    kept = (spoilt == pairs.codes[rows]).mean(1).astype(np.float32)
    return spoilt, kept

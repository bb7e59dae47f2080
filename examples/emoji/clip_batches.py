"""Chooses the pairs of a batch of the CLIP: half of them are images that are easily mistaken for one another."""

from __future__ import annotations

import numpy as np

from examples.emoji.clip_pairs import Pairs
from examples.emoji.combinations import BACKGROUNDS

RUN = 4  # things next to each other in Unicode (clock faces, hands, cats) that share backgrounds in a batch


class BatchMaker:
    """Draws rows of the training split. Every glyph of a batch stands on two backgrounds."""

    def __init__(self, pairs: Pairs) -> None:
        trained = np.flatnonzero(pairs.train)
        self.rows = [trained[pairs.thing[trained] == thing] for thing in range(len(pairs.things))]
        self.background = pairs.background

    def rows_of(self, rng: np.random.Generator, count: int, *, alike: bool) -> np.ndarray:
        """int64 [count], in random order; count is a multiple of 4 * RUN.

        With `alike` all glyphs stand on the same two backgrounds, so that only the glyph tells most images apart.
        """
        everywhere = rng.choice(len(BACKGROUNDS), 2, replace=False)
        chosen: list[int] = []
        for start in rng.integers(0, len(self.rows) - RUN + 1, count // (4 * RUN)):
            wanted = everywhere if alike else self.background[rng.choice(self.rows[start], 2, replace=False)]
            for thing in range(start, start + RUN):
                chosen += self._two(thing, wanted, rng)
        for thing in rng.choice(len(self.rows), (count - len(chosen)) // 2, replace=len(self.rows) < count):
            if alike:
                chosen += self._two(thing, everywhere, rng)
            else:
                chosen += rng.choice(self.rows[thing], 2, replace=False).tolist()
        return rng.permutation(np.array(chosen))

    def _two(self, thing: int, wanted: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Rows of a thing on the wanted backgrounds, or on others where those are held out."""
        rows = self.rows[thing]
        fits = np.isin(self.background[rows], wanted)
        others = rng.permutation(rows[~fits])
        return np.concatenate([rng.permutation(rows[fits]), others])[:2].tolist()

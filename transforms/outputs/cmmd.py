"""CMMD: how far two sets of images are apart in a CLIP's space, summed up as rows come, in memory that no row adds to.

Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", CVPR 2024,
arXiv:2401.09603: 1000 times the squared maximum mean discrepancy of unit embeddings under the kernel
exp(-|x - y|^2 / (2 * 10^2)), each mean over all pairs. For unit vectors the kernel is exp(-0.01) * exp(x.y / 100) and
x.y / 100 at most 0.01, so its power series ends early: the means over all pairs of the first terms are those of the
vectors and of their outer products, without any pair. What is left out is never negative and less than 0.0007.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DEFINITION = (
    "1000 times the squared maximum mean discrepancy of unit CLIP embeddings, kernel exp(-|x - y|^2 / 200), means over "
    "all pairs"
)
SOURCE = "Jayasumana et al., Rethinking FID, CVPR 2024, arXiv:2401.09603"
SCALE = 1000.0
SQUARED_SIGMA = 100.0
FLOOR = 20.0  # / rows: about what two samples of one distribution are apart
BLOCK = 1024  # rows multiplied at once: always these, so that shards of other sizes give the same sums


@dataclass(frozen=True)
class Moments:
    """The mean of vectors, float64 [D], and of their outer products [D, D]."""

    first: np.ndarray
    second: np.ndarray


class Gatherer:
    """Takes unit vectors in order, some at a time, and keeps their sums and at most a block of them."""

    def __init__(self, size: int) -> None:
        self.rows = 0
        self._first = np.zeros(size)
        self._second = np.zeros((size, size))
        self._waiting = np.zeros((0, size))

    def add(self, vectors: np.ndarray) -> None:
        """float [N, D]; each is brought to length 1 in float64."""
        exact = vectors.astype(np.float64)
        exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
        self._waiting = np.concatenate([self._waiting, exact])
        self.rows += len(exact)
        while len(self._waiting) >= BLOCK:
            self._take(self._waiting[:BLOCK])
            self._waiting = self._waiting[BLOCK:]

    def moments(self) -> Moments:
        """Of all that has come; nothing comes after."""
        self._take(self._waiting)
        self._waiting = self._waiting[:0]
        count = max(1, self.rows)
        return Moments(self._first / count, self._second / count)

    def _take(self, block: np.ndarray) -> None:
        self._first += block.sum(0)
        self._second += block.T @ block


def cmmd(one: Moments, other: Moments) -> float:
    """The CMMD of two sets."""
    means = np.square(one.first - other.first).sum() / SQUARED_SIGMA
    products = np.square(one.second - other.second).sum() / (2 * SQUARED_SIGMA**2)
    return float(SCALE * math.exp(-1 / SQUARED_SIGMA) * (means + products))


def floor(rows: int) -> float:
    """About what the CMMD of two samples of so many images of one distribution is."""
    return FLOOR / max(1, rows)

"""A codebook that learns by moving averages: k-means for its start, revival for codes that nothing uses.

Moving averages: van den Oord et al., "Neural Discrete Representation Learning", 2017, appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

DECAY = 0.99
DEAD_BELOW = 0.05  # vectors a step, averaged: a code under it is moved to a latent of the current batch


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """float32 [M, D] and [K, D] -> int64 [M], the closest row."""
    return torch.addmm(codebook.square().sum(1) / 2, vectors, codebook.T, alpha=-1).argmin(1)


def kmeans(vectors: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """Lloyd's algorithm on float32 [M, D] -> centres [count, D]; empty ones restart at random vectors."""
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    for _ in range(rounds):
        codes = nearest(vectors, centres)
        sizes = torch.bincount(codes, minlength=count).to(vectors.dtype)
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        centres = sums / sizes.clamp(min=1)[:, None]
        empty = (sizes == 0).nonzero().flatten()
        centres[empty] = vectors[torch.randint(len(vectors), (len(empty),), generator=generator)]
    return centres


class MovingCodebook:
    """Codes [K, D] with the moving averages behind them: how many vectors each takes a step, and their sum."""

    def __init__(self, count: int, width: int) -> None:
        self.codes = torch.zeros(count, width)
        self.sizes = torch.zeros(count)
        self.sums = torch.zeros(count, width)

    def start(self, centres: Tensor, vectors_per_step: int) -> None:
        """Begin at `centres`, as if every code had taken its even share so far."""
        self.codes = centres.clone()
        self.sizes = torch.full((len(centres),), vectors_per_step / len(centres))
        self.sums = centres * self.sizes[:, None]

    def update(self, vectors: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """One step with the batch's latents [M, D] and their codes [M]; returns how many codes were revived."""
        taken = torch.nn.functional.one_hot(codes, len(self.codes)).to(vectors.dtype)
        self.sizes.lerp_(taken.sum(0), 1 - DECAY)
        self.sums.lerp_(taken.T @ vectors, 1 - DECAY)
        self.codes = self.sums / self.sizes.clamp(min=1e-6)[:, None]
        dead = (self.sizes < DEAD_BELOW).nonzero().flatten()
        if len(dead):
            self.codes[dead] = vectors[torch.randint(len(vectors), (len(dead),), generator=generator)]
            self.sizes[dead] = 0.5
            self.sums[dead] = self.codes[dead] * 0.5
        return len(dead)

    def state_dict(self) -> dict[str, Tensor]:
        return {"codes": self.codes, "sizes": self.sizes, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.codes, self.sizes, self.sums = state["codes"], state["sizes"], state["sums"]

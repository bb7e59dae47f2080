"""The geometry of a codebook: how far its codes spread, and which lie next to each other. For `vqbeam vary`."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 512  # codes whose distances to all others are in memory at once


def trained_codes(codebook: np.ndarray) -> np.ndarray:
    """Ids int64 of the codes [K, D] that training has moved, in order.

    The reference draws a new codebook uniformly from [-1/K, 1/K], and a code that no picture ever used stays there: in
    big codebooks most do, and a decoder has never seen them. All ids where fewer than two have moved.
    """
    moved = np.flatnonzero((np.abs(codebook) > 1 / len(codebook)).any(1))
    return moved if len(moved) > 1 else np.arange(len(codebook))


def spread(codebook: np.ndarray) -> float:
    """The root mean square distance of a component of the trained codes from its mean, over all components."""
    values = codebook[trained_codes(codebook)].astype(np.float64)
    return float(np.sqrt(np.square(values - values.mean(0)).mean()))


def nearest_codes(codebook: np.ndarray, count: int) -> np.ndarray:
    """int32 [K, count]: the `count` nearest trained codes of each code [K, D] but itself, nearest first.

    Equal distances go by id, but which of several is the last one taken is left to torch. In float64, so that the order
    is that of the codebook and not of the machine; a block of the K x K distances is in memory at a time. `count` is
    below the number of trained codes.
    """
    candidates = trained_codes(codebook)
    points = torch.from_numpy(codebook.astype(np.float64))
    targets = points[torch.from_numpy(candidates)]
    norms = targets.square().sum(1)
    table = np.empty((len(codebook), count), np.int32)
    for start in range(0, len(codebook), BLOCK):
        part = points[start : start + BLOCK]
        distances = torch.addmm(norms, part, targets.T, alpha=-2)  # squared, less what is the same for a whole row
        own = torch.arange(start, start + len(part))[:, None] == torch.from_numpy(candidates)
        nearest = torch.topk(distances.masked_fill_(own, torch.inf), count, largest=False, sorted=False)
        ids = candidates[nearest.indices.numpy()]
        order = np.lexsort((ids, nearest.values.numpy()))
        table[start : start + len(part)] = np.take_along_axis(ids, order, 1)
    return table

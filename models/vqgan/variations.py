"""The noise of `vqbeam vary`, on the latents or the codes of an image, and the geometry of a codebook.

All of it comes from `models/uniforms.py`, on the host: one seed, key and sample give one variation on any device and
in any batch. The scheme is versioned like that of the uniforms.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from models.uniforms import uniforms

VARIATIONS_VERSION = 1
TINIEST = 2.0**-54  # half of the smallest step between uniforms: its normal quantile is finite, that of 0 is not
NEIGHBOUR_SHARE = 8  # a code is redrawn among at most one in so many of the codebook
MOST_NEIGHBOURS = 512
BLOCK = 512  # codes whose distances to all others are in memory at once


def gaussians(seed: int, key: str, sample: int, count: int) -> np.ndarray:
    """float64 [count]: standard normal numbers of one image, by the inverse of the normal distribution function."""
    return ndtri(np.maximum(uniforms(seed, key, sample, count, stream="latents"), TINIEST))


def neighbour_count(codes: int) -> int:
    """How many neighbours of a code may replace it, if `codes` can be drawn."""
    return min(MOST_NEIGHBOURS, max(1, codes // NEIGHBOUR_SHARE), codes - 1)


def redrawn(codes: np.ndarray, neighbours: np.ndarray, strength: float, seed: int, key: str, sample: int) -> np.ndarray:
    """The codes int [T] of one image with a share of `strength` drawn again, int32 [T].

    `neighbours` [K, R] has the nearest codes of each, nearest first. A code is redrawn if its uniform is below
    `strength`, so a higher strength changes all that a lower one does. The new code is the neighbour of rank
    `strength` x R x u^2, u uniform: near ones first, and the further the stronger.
    """
    changes = uniforms(seed, key, sample, len(codes), stream="redrawn") < strength
    distance = np.square(uniforms(seed, key, sample, len(codes), stream="neighbours"))
    ranks = (strength * neighbours.shape[1] * distance).astype(np.int64)
    return np.where(changes, neighbours[codes, ranks], codes).astype(np.int32)


def kept_rows(strength: float, grid: int) -> int:
    """How many of the `grid` rows of codes a completion keeps: all at strength 0, none at 1, never all in between."""
    return grid - math.ceil(strength * grid - 1e-9)


def trained_codes(codebook: np.ndarray) -> np.ndarray:
    """Ids int64 of the codes [K, D] that training has moved, in order.

    The reference draws a new codebook uniformly from [-1/K, 1/K], and a code that no image ever used stays there: in
    big codebooks most do, and a decoder has never seen them. All ids if fewer than two have moved.
    """
    moved = np.flatnonzero((np.abs(codebook) > 1 / len(codebook)).any(1))
    return moved if len(moved) > 1 else np.arange(len(codebook))


def spread(codebook: np.ndarray) -> float:
    """The root mean square distance of a component of the trained codes from its mean, over all components."""
    values = codebook[trained_codes(codebook)].astype(np.float64)
    return float(np.sqrt(np.square(values - values.mean(0)).mean()))


def nearest_codes(codebook: np.ndarray, count: int) -> np.ndarray:
    """int32 [K, count]: the `count` nearest trained codes of each code [K, D] but itself, nearest first.

    Equal distances go by id. In float64, so that the order is that of the codebook and not of the machine; a block of
    the K x K distances is in memory at a time. `count` is below the number of trained codes.
    """
    import torch

    candidates = trained_codes(codebook)
    points = torch.from_numpy(codebook.astype(np.float64))
    targets = points[torch.from_numpy(candidates)]
    norms = targets.square().sum(1)
    table = np.empty((len(codebook), count), np.int32)
    for start in range(0, len(codebook), BLOCK):
        part = points[start : start + BLOCK]
        distances = torch.addmm(norms, part, targets.T, alpha=-2)  # squared, less what is the same for a whole row
        own = torch.arange(start, start + len(part))[:, None] == torch.from_numpy(candidates)
        distances = distances.masked_fill_(own, torch.inf)
        nearest = torch.topk(distances, count, largest=False, sorted=False)
        values, columns = nearest.values.numpy(), nearest.indices.numpy()
        _settle_ties(distances.numpy(), values, columns)
        ids = candidates[columns]
        order = np.lexsort((ids, values))
        table[start : start + len(part)] = np.take_along_axis(ids, order, 1)
    return table


def _settle_ties(distances: np.ndarray, values: np.ndarray, columns: np.ndarray) -> None:
    """Of several that are as far as the furthest one taken, take those of the lowest ids: `topk` promises none.

    `values` and `columns` [N, count] are what it took of the `distances` [N, C]; they change in place.
    """
    furthest = values.max(1, keepdims=True)
    equal = distances == furthest
    taken = values == furthest
    for row in np.flatnonzero(equal.sum(1) > taken.sum(1)):
        columns[row, taken[row]] = np.flatnonzero(equal[row])[: taken[row].sum()]

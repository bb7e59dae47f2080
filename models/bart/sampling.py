"""From logits to codes: guidance, temperature, top-k, top-p, and the inverse of the cumulative distribution.

Order and meaning are those of dalle-mini. Probabilities are whole multiples of 2^-38 of the largest: whole numbers have
the same sum in any order, so a row's code depends neither on the rows beside it nor on which of the two searches below
is used. Nothing here waits for the device, and no search sorts the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SCALE = 2.0**38  # weight of the most probable code; a sum over 2^24 codes fits 62 bits
BLOCK = 32  # neighbouring codes that their largest represents while candidates are searched
KEY_BITS = 32
LOWEST = -(2**31)
DIGITS = ((21, 2048), (10, 2048), (0, 1024))  # of the 32 bits of a key: the shift of each, and how many values it has
LEAST_CANDIDATES = 64
MOST_CANDIDATES = 1024  # above it the whole vocabulary is searched


@dataclass(frozen=True)
class Search:
    """What the caller knows about all rows; it makes the search cheap and changes no result.

    `candidates`: no row's `top_k` is larger, and none is 0; else this is 0. `limited`: some row has a `top_k`.
    `nucleus`: some row has a `top_p` below 1.
    """

    candidates: int = 0
    limited: bool = True
    nucleus: bool = True

    @classmethod
    def covering(cls, options: Mapping[str, np.ndarray]) -> Search:
        """A search that serves all rows; there are few different ones, since a GPU records a program for each."""
        top_k, top_p = options["top_k"], options["top_p"]
        most = int(top_k.max()) if top_k.min() > 0 else MOST_CANDIDATES + 1
        candidates = max(LEAST_CANDIDATES, 1 << (most - 1).bit_length())
        nucleus = bool((top_p < 1).any())
        if candidates <= MOST_CANDIDATES:
            return cls(candidates, nucleus=nucleus)
        return cls(limited=bool((top_k > 0).any()), nucleus=nucleus)


EXHAUSTIVE = Search()


def guide(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance on rows [N, ...] by `scale` [N]: 1 gives `cond`, more moves away from `uncond`.

    It commutes with a linear layer: guiding the states in front of one guides the logits behind it.
    """
    return torch.lerp(uncond, cond, scale.view(-1, *[1] * (cond.dim() - 1)))


def sample(logits: Tensor, options: Mapping[str, Tensor], uniform: Tensor, search: Search = EXHAUSTIVE) -> Tensor:
    """Draw a code a row: int64 [N], for float32 logits [N, V] and float64 uniforms [N] in [0, 1).

    The kept codes form a line in the order of their ids, each as long as its probability; the code at `uniform` of the
    length is drawn, never one of probability 0. `options` has arrays [N] for `temperature`, `top_k` and
    `top_p`. A row keeps the `top_k` codes of largest logit (0: all), and of these the fewest whose probabilities reach
    `top_p` (1: all); among equals the lower id comes first. `temperature` divides the logits: the caller checks that it
    is above 0; towards 0 this becomes the argmax.
    """
    if not search.candidates:
        return _inverse(kept_weights(logits, options, search), uniform)
    ids = _candidates(logits, min(search.candidates, logits.shape[1]))
    values = logits.gather(1, ids)
    weights = _weights(values, values[:, :1], options["temperature"])
    weights = weights * (torch.arange(ids.shape[1], device=ids.device) < options["top_k"][:, None])
    if search.nucleus:
        before = weights.cumsum(1) - weights
        weights = weights * (before < _reach(weights, options["top_p"])[:, None])
    ids, order = ids.sort(1)
    return ids.gather(1, _inverse(weights.gather(1, order), uniform)[:, None])[:, 0]


def kept_weights(logits: Tensor, options: Mapping[str, Tensor], search: Search = EXHAUSTIVE) -> Tensor:
    """int64 [N, V]: what `sample` draws in proportion to, without candidates; 0 for codes that a row does not keep."""
    weights = _weights(logits, logits.amax(1, keepdim=True), options["temperature"])
    keys = _sortable(logits)
    if search.limited:
        limit = torch.where(options["top_k"] > 0, options["top_k"], logits.shape[1]).long()
        weights = weights * _first_to_reach(keys, torch.ones_like(weights), limit)
    if search.nucleus:
        weights = weights * _first_to_reach(keys, weights, _reach(weights, options["top_p"]))
    return weights


def _weights(logits: Tensor, largest: Tensor, temperature: Tensor) -> Tensor:
    """int64, at most `SCALE`. The largest is subtracted first, so that it stays 1 at any temperature.

    NaN weighs nothing: the drawn code is meaningless then, but a valid id.
    """
    return (((logits - largest) / temperature[:, None]).exp().double().nan_to_num(0.0) * SCALE).long()


def _reach(weights: Tensor, top_p: Tensor) -> Tensor:
    """The sum that the weights of the kept codes must reach: int64 [N], at least 1."""
    return (weights.sum(1) * top_p.double()).ceil().long().clamp(min=1)


def _inverse(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first position of each row [N, K] up to which the weights exceed `uniform` [N] of their sum: int64 [N]."""
    ends = weights.cumsum(1)
    total = ends[:, -1]
    # The product can round up to the sum itself, past the end of the line.
    target = torch.minimum((uniform * total).long(), total - 1)
    return torch.searchsorted(ends, target[:, None], right=True)[:, 0]


def _sortable(values: Tensor) -> Tensor:
    """int32 that sort like the float32 `values`."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 equals 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _candidates(logits: Tensor, count: int) -> Tensor:
    """Ids of the `count` largest logits of each row, largest first, of equals the lowest: int64 [N, count].

    Finds the blocks that can hold them by their largest member, then the codes in those blocks.
    """
    rows, size = logits.shape
    blocks = -(-size // BLOCK)
    ids = torch.arange(size, device=logits.device).expand(rows, size)
    if blocks > count:
        padded = torch.nn.functional.pad(logits, (0, blocks * BLOCK - size), value=-torch.inf)
        padded = padded.view(rows, blocks, BLOCK)
        chosen = _largest(padded.amax(2), torch.arange(blocks, device=logits.device), count)
        ids = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits.device)).flatten(1)
        logits = padded.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    return _largest(logits, ids, count)


def _largest(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """The ids, below 2^31, of the `count` largest values of each row; of equals the lowest."""
    keys = (_sortable(values).long() << KEY_BITS) | (0x7FFFFFFF - ids)
    return 0x7FFFFFFF - (keys.topk(count, 1).values & 0xFFFFFFFF)


def _first_to_reach(keys: Tensor, weights: Tensor, limit: Tensor) -> Tensor:
    """bool [N, V]: the fewest codes, by falling key and then rising id, whose weights sum up to `limit` [N].

    Finds the key of the last of them digit by digit: sums the weights by digit, and searches the sums from the top.
    `limit` is at least 1 and at most the sum of a row.
    """
    digits = keys.long() - LOWEST
    last = torch.ones_like(keys, dtype=torch.bool)  # codes that agree with the key as far as it is known
    above = torch.zeros_like(last)
    rest = limit[:, None]
    for shift, size in DIGITS:
        digit = (digits >> shift) & (size - 1)
        sums = weights.new_zeros(len(keys), size + 1).scatter_add_(1, digit, weights * last)
        reached = sums.flip(1).cumsum(1).flip(1)  # by the codes of this digit and above
        found = (reached >= rest).sum(1, keepdim=True) - 1
        rest = rest - reached.gather(1, found + 1)
        above |= last & (digit > found)
        last &= digit == found
    tied = weights * last
    return above | (last & (tied.cumsum(1) - tied < rest))

"""From latents to codes and back: the rules by which image tokenizers choose a code, each in float32 on every path.

Searches work through blocks of latents and codes, so that memory does not grow with their product. Of equal codes the
lowest wins. Whatever the dtype of a network, its latents, its codebook and the search are float32: in bfloat16 most
codebooks lose the difference between neighbours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEARCH_BLOCK = 128
SEARCH_CODES = 1 << 14  # rows of a codebook compared at once
SEARCH_CELLS = {"cpu": 1 << 22, "cuda": 1 << 27}  # scores held at once while searching codes
SEARCHES = ("nearest", "cosine", "dot")  # the rules of `VectorQuantiser`
TINIEST_LENGTH = 1e-12  # of a vector that is divided by its length
FSQ_MARGIN = 1e-3  # how far beyond the outer levels FSQ lets a latent reach


class Quantiser(nn.Module, ABC):
    """A rule from latents to codes, and the vectors that a decoder reads for them."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """float32 [codes, D]: the vector of each code."""

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor:
        """float32 [M, D] -> codes int64 [M]."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """int64 [...] -> their vectors [..., D]."""

    def comparable(self, latents: Tensor) -> Tensor:
        """Latents [..., D] at the scale of the codebook's vectors, with the same codes."""
        return latents


class VectorQuantiser(Quantiser):
    """A learned codebook [codes, width], of which the best row is the code.

    "nearest" takes the smallest squared distance, "cosine" the largest cosine, and its vectors are the rows divided by
    their length; "dot" takes the largest dot product.
    """

    def __init__(self, codes: int, width: int, search: str = "nearest") -> None:
        super().__init__()
        if search not in SEARCHES:
            raise ValueError(f"search {search!r}: expected {', '.join(SEARCHES)}")
        self.search = search
        self.embedding = nn.Embedding(codes, width)

    @property
    def codebook(self) -> Tensor:
        rows = self.embedding.weight
        return rows if self.search != "cosine" else unit(rows.float())

    def forward(self, latents: Tensor) -> Tensor:
        rows = self.codebook.float()
        offsets = rows.square().sum(1) / 2 if self.search == "nearest" else rows.new_zeros(len(rows))
        return least(self.comparable(latents.float()), rows, offsets)

    def lookup(self, codes: Tensor) -> Tensor:
        rows = F.embedding(codes, self.embedding.weight)
        return rows if self.search != "cosine" else unit(rows.float())

    def comparable(self, latents: Tensor) -> Tensor:
        return unit(latents.float()) if self.search == "cosine" else latents


class SignQuantiser(Quantiser):
    """A code is the signs of its latent, a bit a channel; vectors are -1 and +1, and zero counts as negative.

    Channel 0 is the lowest bit (LFQ of Open-MAGVIT2), or with `highest_first` the highest (Show-o).
    """

    def __init__(self, bits: int, *, highest_first: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self._values = [1 << (bits - 1 - bit if highest_first else bit) for bit in range(bits)]  # of the channels

    @property
    def codebook(self) -> Tensor:
        return self.lookup(torch.arange(1 << self.bits))

    def forward(self, latents: Tensor) -> Tensor:
        return ((latents > 0) * latents.new_tensor(self._values, dtype=torch.long)).sum(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        return ((codes[..., None] & codes.new_tensor(self._values)) > 0).float() * 2 - 1


class LevelQuantiser(Quantiser):
    """Finite scalar quantisation: each channel is bounded and rounded to one of its `levels`; the first counts least.

    Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = list(levels)
        self._values = [math.prod(levels[:channel]) for channel in range(len(levels))]

    @property
    def codebook(self) -> Tensor:
        return self.lookup(torch.arange(math.prod(self.levels)))

    def forward(self, latents: Tensor) -> Tensor:
        levels = latents.new_tensor(self.levels, dtype=torch.float32)
        half = (levels - 1) * (1 + FSQ_MARGIN) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(latents.float() + torch.atanh(offset / half)) * half - offset
        steps = bounded.round().long() + latents.new_tensor(self.levels, dtype=torch.long) // 2
        return (steps * steps.new_tensor(self._values)).sum(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        levels = codes.new_tensor(self.levels)
        steps = codes[..., None] // codes.new_tensor(self._values) % levels
        return (steps - levels // 2) / (levels // 2).float()


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., D] divided by their length."""
    return F.normalize(vectors, dim=-1, eps=TINIEST_LENGTH)


def least(latents: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """The row [K, D] with the smallest `offsets` [K] - latent . row for each latent [M, D], int64 [M]."""
    parts = latents.split(search_rows(latents, min(len(rows), SEARCH_CODES)))
    if len(rows) <= SEARCH_CODES:
        return torch.cat([first_smallest(scores(part, rows, offsets)) for part in parts])
    return torch.cat([_least_of_blocks(part, rows, offsets) for part in parts])


def _least_of_blocks(latents: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    best = latents.new_full((len(latents),), torch.inf)
    codes = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
    for start in range(0, len(rows), SEARCH_CODES):
        block = slice(start, start + SEARCH_CODES)
        found = scores(latents, rows[block], offsets[block])
        within = first_smallest(found)
        score = found.gather(1, within[:, None])[:, 0]
        codes = torch.where(score < best, within + start, codes)  # of equal ones the earlier stays
        best = torch.minimum(score, best)
    return codes


def scores(latents: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """[M, K]: the smaller, the better."""
    return torch.addmm(offsets, latents, rows.T, alpha=-1)


def search_rows(latents: Tensor, codes: int) -> int:
    """How many latents to search for at once."""
    return max(1, SEARCH_CELLS.get(latents.device.type, SEARCH_CELLS["cpu"]) // codes)


def first_smallest(values: Tensor) -> Tensor:
    """`values.argmin(1)` of [M, K], by blocks: torch's minimum is vectorised and its argmin is not."""
    rows, columns = values.shape
    if columns % SEARCH_BLOCK or values.device.type != "cpu":
        return values.argmin(1)
    blocks = values.view(rows, -1, SEARCH_BLOCK)
    block = blocks.amin(2).argmin(1)
    within = blocks[torch.arange(rows), block].argmin(1)
    return block * SEARCH_BLOCK + within

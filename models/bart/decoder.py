"""DALL·E BART's decoder one code at a time: weights prepared for few rows, caches of fixed shape.

`models/bart/generator.py` drives it. The arithmetic is that of `Decoder` in `models/bart/network.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from models.bart.cached_layer import CachedLayer, Captions
from models.bart.dense import Dense
from models.bart.network import Decoder, DecoderLayer


class CachedDecoder:
    """The decoder for a fixed number of rows, of which `predicted_rows` are left where logits are asked for.

    `codebook_size`: ids at and above it are no codes and are never predicted: their rows of `lm_head` are left out.
    Weights and caches are held in `dtype`; the sum that the layers add to and the logits are float32.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        rows: int,
        predicted_rows: int,
        codebook_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        length = decoder.embed_positions.num_embeddings
        self.scale = decoder.embedding_scale
        self.codes = decoder.embed_tokens.weight.detach().to(device, dtype)
        self.positions = decoder.embed_positions.weight.detach().to(device, torch.float32)
        self.embedding_norm = copy.deepcopy(decoder.layernorm_embedding).to(device, torch.float32)
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        self.layers = [CachedLayer(layer, rows, length, device, dtype) for layer in layers]
        self.final_norm = copy.deepcopy(decoder.final_ln).to(device, torch.float32)
        head = decoder.lm_head.weight[:codebook_size]
        self.lm_head = Dense([head], rows=predicted_rows, device=device, dtype=torch.float32)
        later = torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)
        self.visible = torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(later, -torch.inf)
        self.captions: list[list[Captions]] = []

    def begin(self, captions: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take encoder states [G, L, D] and masks [G, L] (1 = real): each pair stands for an equal share of the rows.

        Later ones, of the same shapes, are written over the first, whose addresses a CUDA graph knows.
        """
        for number, layer in enumerate(self.layers):
            new = [layer.captions(*pair) for pair in captions]
            if number == len(self.captions):
                self.captions.append(new)
            for kept, other in zip(self.captions[number], new, strict=True):
                kept.copy_(other)

    def step(self, ids: Tensor, position: Tensor, filled: int, *, exact: bool) -> Tensor:
        """Ids int64 [N] at `position` int64 [1] -> states in front of `lm_head`, float32 [N, D].

        Attention runs over the first `filled` places: `exact` says that the position is the last of them, otherwise
        those after it are masked.
        """
        x = self.embedding_norm(self.codes[ids].float() * self.scale + self.positions[position])
        visible = filled if exact else self.visible[position, :filled]
        for layer, captions in zip(self.layers, self.captions, strict=True):
            layer.step(x, captions, position, visible)
        return self.final_norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """float32 [predicted_rows, D] -> float32 [predicted_rows, codebook_size]."""
        return self.lm_head(states)

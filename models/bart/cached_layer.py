"""One layer of DALL·E BART's decoder for a single code of each picture, with the keys and values of the codes so far.

`models/bart/decoder.py` stacks them. Between the large products stand many small operations on a few rows: each costs
some microseconds whatever it does, so there are as few as possible.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bart.dense import Dense
from models.bart.network import DecoderLayer

TILE = 64  # hidden sizes are rounded up to whole tiles of a matrix unit
LEAST_TILED_ROWS = 32  # with fewer rows the bytes of the weights are all that counts


@dataclass(frozen=True)
class Captions:
    """Keys and values [G, heads, L, head size] of G captions, for one layer; what is added to scores, [G, 1, 1, L]."""

    keys: Tensor
    values: Tensor
    mask: Tensor

    def copy_(self, other: Captions) -> None:
        """Take the values of `other`, of the same shapes."""
        self.keys.copy_(other.keys)
        self.values.copy_(other.values)
        self.mask.copy_(other.mask)


class CachedLayer:
    """`rows` pictures and guidance halves of `length` codes. Weights and cache are held in `dtype`."""

    def __init__(self, layer: DecoderLayer, rows: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        dense = partial(Dense.of, rows=rows, device=device, dtype=dtype)

        def norm(module: nn.Module, kept_in: torch.dtype = dtype) -> Callable[[Tensor], Tensor]:
            return copy.deepcopy(module).to(device, kept_in).forward

        own, text, glu = layer.self_attn, layer.encoder_attn, layer.glu
        self.dtype = dtype
        self.heads = own.heads
        self.own_norm = norm(layer.pre_self_attn_layer_norm, torch.float32)
        self.own_in = dense(own.q_proj, own.k_proj, own.v_proj)
        self.own_out = dense(own.out_proj)
        self.own_branch_norm = norm(layer.self_attn_layer_norm)
        self.text_norm = norm(layer.pre_encoder_attn_layer_norm, torch.float32)
        self.text_in = dense(text.q_proj)
        self.text_keys_values = dense(text.k_proj, text.v_proj)
        self.text_out = dense(text.out_proj)
        self.text_branch_norm = norm(layer.encoder_attn_layer_norm)
        self.glu_norm = norm(glu.ln0, torch.float32)
        self.activation = glu.activation
        self.hidden = glu.fc2.in_features
        held = self.hidden if rows < LEAST_TILED_ROWS else -(-self.hidden // TILE) * TILE
        self.gate = dense(glu.fc0, outputs=held)
        self.gated = dense(glu.fc1, outputs=held) if glu.fc1 is not None else None
        self.hidden_norm = norm(glu.ln1)
        self.glu_out = dense(glu.fc2, inputs=held)
        self.tiled = torch.zeros(rows, held, device=device, dtype=dtype) if held > self.hidden else None
        head_size = own.q_proj.in_features // self.heads
        self.cache = torch.zeros(rows, 2, self.heads, length, head_size, device=device, dtype=dtype)

    def captions(self, states: Tensor, mask: Tensor) -> Captions:
        """Encoder states [G, L, D] and mask [G, L] -> what the codes of those captions attend to."""
        keys, values = self.text_keys_values(states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        hidden = torch.zeros(mask.shape, device=mask.device, dtype=self.dtype).masked_fill_(mask == 0, -torch.inf)
        return Captions(keys.contiguous(), values.contiguous(), hidden[:, None, None, :])

    def step(self, x: Tensor, captions: Sequence[Captions], position: Tensor, visible: Tensor | int) -> None:
        """Add this layer's branches to `x`, float32 [N, D], in place; the code stands at `position`, int64 [1].

        `visible` says which places of the cache are attended to: the first so many, `position` being the last of them,
        or those with 0 and not -inf in a tensor [1, places], where the host does not know the position.
        """
        x += self.own_branch_norm(self._own_attention(self.own_norm(x).to(self.dtype), position, visible))
        x += self.text_branch_norm(self._text_attention(self.text_norm(x).to(self.dtype), captions))
        x += self._feed_forward(self.glu_norm(x).to(self.dtype))

    def _own_attention(self, x: Tensor, position: Tensor, visible: Tensor | int) -> Tensor:
        query, new = self.own_in(x).view(len(x), 3, self.heads, 1, -1).split((1, 2), 1)
        if isinstance(visible, int):
            mask, seen = None, self.cache[:, :, :, :visible]
            seen[:, :, :, visible - 1 :] = new
        else:
            mask, seen = visible, self.cache[:, :, :, : visible.shape[1]]
            self.cache.index_copy_(3, position, new)
        found = F.scaled_dot_product_attention(query[:, 0], seen[:, 0], seen[:, 1], mask)
        return self.own_out(found.flatten(1))

    def _text_attention(self, x: Tensor, captions: Sequence[Captions]) -> Tensor:
        """Rows stand caption by caption, in equal numbers: those of one are the queries of one product."""
        found = []
        for group, query in zip(captions, self.text_in(x).chunk(len(captions)), strict=True):
            split = query.view(len(group.keys), -1, self.heads, group.keys.shape[3]).transpose(1, 2)
            attended = F.scaled_dot_product_attention(split, group.keys, group.values, group.mask)
            found.append(attended.transpose(1, 2).reshape(query.shape))
        return self.text_out(found[0] if len(found) == 1 else torch.cat(found))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.gate.activated(x, self.activation)
        if self.gated is not None:
            hidden = self.gated.times(x, hidden)
        if self.tiled is None:
            return self.glu_out(self.hidden_norm(hidden))
        self.tiled[:, : self.hidden] = self.hidden_norm(hidden[:, : self.hidden])
        return self.glu_out(self.tiled)

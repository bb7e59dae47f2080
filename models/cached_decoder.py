"""DALL·E BART's decoder one code at a time: prepared weights, caches of fixed shape, captions' keys and values kept.

`models/token_generator.py` drives it. The arithmetic is that of `Decoder` in `models/dalle_bart.py`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dalle_bart import Decoder, DecoderLayer


class Dense:
    """Dense layers that read the same rows, as one product."""

    def __init__(self, *layers: nn.Linear, device: torch.device, dtype: torch.dtype) -> None:
        self.weight = torch.cat([layer.weight.detach() for layer in layers]).to(device, dtype)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases).to(device, dtype) if biases else None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, outputs of the first layer, outputs of the second, ...]."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Caption:
    """Keys and values [G, heads, L, head size] of G captions, for one layer; what a query may see, [G, 1, 1, L]."""

    keys: Tensor
    values: Tensor
    mask: Tensor


class CachedLayer:
    """A decoder layer with the keys and values of all codes so far."""

    def __init__(self, layer: DecoderLayer, rows: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        def dense(*layers: nn.Linear) -> Dense:
            return Dense(*layers, device=device, dtype=dtype)

        def norm(module: nn.Module, kept_in: torch.dtype = dtype) -> nn.Module:
            return copy.deepcopy(module).to(device, kept_in)

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
        self.glu_in = dense(glu.fc0) if glu.fc1 is None else dense(glu.fc0, glu.fc1)
        self.gated = glu.fc1 is not None
        self.activation = glu.activation
        self.hidden_norm = norm(glu.ln1)
        self.glu_out = dense(glu.fc2)
        shape = (rows, self.heads, length, own.q_proj.in_features // self.heads)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    def caption(self, states: Tensor, mask: Tensor) -> Caption:
        """Encoder states [G, L, D] and mask [G, L] -> what the codes of those captions attend to."""
        keys, values = self.text_keys_values(states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return Caption(keys.contiguous(), values.contiguous(), mask.bool()[:, None, None, :])

    def step(self, x: Tensor, captions: list[Caption], position: Tensor, visible: Tensor) -> None:
        """Add this layer's branches to `x`, float32 [N, D], in place. `visible` bool [1, filled]."""
        x += self.own_branch_norm(self._own_attention(self.own_norm(x).to(self.dtype), position, visible))
        x += self.text_branch_norm(self._text_attention(self.text_norm(x).to(self.dtype), captions))
        x += self._feed_forward(self.glu_norm(x).to(self.dtype))

    def _own_attention(self, x: Tensor, position: Tensor, visible: Tensor) -> Tensor:
        query, key, value = self.own_in(x).view(len(x), 3, self.heads, 1, -1).unbind(1)
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        filled = visible.shape[1]
        found = F.scaled_dot_product_attention(query, self.keys[:, :, :filled], self.values[:, :, :filled], visible)
        return self.own_out(found.flatten(1))

    def _text_attention(self, x: Tensor, captions: list[Caption]) -> Tensor:
        """Rows stand caption by caption: those of one are the queries of one product."""
        query = self.text_in(x)
        found = torch.empty_like(query)
        first = 0
        rows = len(x) // len(captions)
        for caption in captions:
            part = slice(first, first + rows)
            grouped = query[part].view(len(caption.keys), -1, self.heads, caption.keys.shape[3]).transpose(1, 2)
            attended = F.scaled_dot_product_attention(grouped, caption.keys, caption.values, caption.mask)
            found[part] = attended.transpose(1, 2).reshape(rows, -1)
            first += rows
        return self.text_out(found)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.glu_in(x)
        if self.gated:
            first, second = hidden.chunk(2, 1)
            hidden = self.activation(first).mul_(second)
        else:
            hidden = self.activation(hidden)
        return self.glu_out(self.hidden_norm(hidden))


class CachedDecoder:
    """The decoder for a fixed number of rows.

    `codebook_size`: ids at and above it are no codes and are never predicted: their rows of `lm_head` are left out.
    Weights and caches are held in `dtype`; the sum that the layers add to and the logits are float32.
    """

    def __init__(
        self, decoder: Decoder, rows: int, codebook_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        length = decoder.embed_positions.num_embeddings
        self.scale = decoder.embedding_scale
        self.codes = decoder.embed_tokens.weight.detach().to(device, dtype)
        self.positions = decoder.embed_positions.weight.detach().to(device, dtype)
        self.embedding_norm = copy.deepcopy(decoder.layernorm_embedding).to(device, torch.float32)
        layers = cast("list[DecoderLayer]", list(decoder.layers))
        self.layers = [CachedLayer(layer, rows, length, device, dtype) for layer in layers]
        self.final_norm = copy.deepcopy(decoder.final_ln).to(device, torch.float32)
        self.lm_head = decoder.lm_head.weight.detach()[:codebook_size].to(device, torch.float32)
        self.visible = torch.ones(length, length, dtype=torch.bool, device=device).tril_()
        self.captions: list[list[Caption]] = []

    def begin(self, captions: list[tuple[Tensor, Tensor]]) -> None:
        """Take encoder states [G, L, D] and masks [G, L]: each pair stands for an equal share of the rows.

        Later captions of the same shapes are written over the first ones, whose addresses a CUDA graph knows.
        """
        new = [[layer.caption(*pair) for pair in captions] for layer in self.layers]
        if not self.captions:
            self.captions = new
            return
        for old_layer, new_layer in zip(self.captions, new, strict=True):
            for old, caption in zip(old_layer, new_layer, strict=True):
                old.keys.copy_(caption.keys)
                old.values.copy_(caption.values)
                old.mask.copy_(caption.mask)

    def step(self, ids: Tensor, position: Tensor, filled: int) -> Tensor:
        """Ids int64 [N] at `position` int64 [1], below `filled` -> states in front of `lm_head`, float32 [N, D]."""
        x = self.codes[ids].float() * self.scale + self.positions[position].float()
        x = self.embedding_norm(x)
        visible = self.visible[position, :filled]
        for layer, captions in zip(self.layers, self.captions, strict=True):
            layer.step(x, captions, position, visible)
        return self.final_norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, D] -> float32 [N, codebook_size]."""
        return F.linear(states, self.lm_head)

"""DALL·E BART's decoder one code at a time: weights prepared for few rows, caches of fixed shape.

`models/bart/generator.py` drives it. The arithmetic is that of `Decoder` in `models/bart/network.py`. Each small
operation between the large products costs some microseconds, so there are few.

With few rows a product takes as long as reading its weights. On a CPU, oneDNN reads its own blocked layout faster than
the plain one, which it otherwise rearranges at every call (`benchmarks/products.py` measures by how much).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bart.network import Decoder, DecoderLayer

LEAST_PACKED_ROWS = 4  # in float32: fewer are faster with the plain layout
TILE = 64  # hidden sizes are rounded up to whole tiles of a matrix unit
LEAST_TILED_ROWS = 32  # with fewer rows only the bytes of the weights count


class CachedDecoder:
    """The decoder for a fixed number of rows; logits are computed for `predicted_rows` of them.

    Ids from `codebook_size` on are no codes and are never predicted: their rows of `lm_head` are left out.
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
            for kept, other in zip(chain(*self.captions[number]), chain(*new), strict=True):
                kept.copy_(other)

    def step(self, ids: Tensor, position: Tensor, filled: int, *, exact: bool) -> Tensor:
        """Ids int64 [N] at `position` int64 [1] -> states in front of `lm_head`, float32 [N, D].

        Attention runs over the first `filled` positions. With `exact` the last of them is `position`, otherwise later
        ones are masked.
        """
        x = self.embedding_norm(self.codes[ids].float() * self.scale + self.positions[position])
        visible = filled if exact else self.visible[position, :filled]
        for layer, captions in zip(self.layers, self.captions, strict=True):
            layer.step(x, captions, position, visible)
        return self.final_norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """float32 [predicted_rows, D] -> float32 [predicted_rows, codebook_size]."""
        return self.lm_head(states)


class Captions(NamedTuple):
    """Keys and values [G, heads, L, head size] of G captions for one layer, and the mask [G, 1, 1, L] that is added."""

    keys: Tensor
    values: Tensor
    mask: Tensor


class CachedLayer:
    """One layer for a single code of each row, with the keys and values of up to `length` codes so far.

    A row is an image, or the other guidance half of one. Weights and cache are held in `dtype`.
    """

    def __init__(self, layer: DecoderLayer, rows: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        def dense(*layers: nn.Linear, inputs: int = 0, outputs: int = 0) -> Dense:
            weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
            return Dense(weights, biases, rows=rows, device=device, dtype=dtype, inputs=inputs, outputs=outputs)

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
        """Encoder states [G, L, D] and mask [G, L] -> the keys and values that codes attend to."""
        keys, values = self.text_keys_values(states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        hidden = torch.zeros(mask.shape, device=mask.device, dtype=self.dtype).masked_fill_(mask == 0, -torch.inf)
        return Captions(keys.contiguous(), values.contiguous(), hidden[:, None, None, :])

    def step(self, x: Tensor, captions: Sequence[Captions], position: Tensor, visible: Tensor | int) -> None:
        """Add this layer's branches to `x`, float32 [N, D], in place; the code is at `position`, int64 [1].

        Attention runs over the first `visible` positions of the cache, `position` being the last; or, if the host does
        not know the position, over those with 0 and not -inf in the tensor `visible` [1, positions].
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
        """Each caption has an equal number of consecutive rows, which are the queries of one product."""
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


class Dense:
    """[rows, inputs] -> [rows, outputs of the first layer, outputs of the second, ...].

    Merges layers that read the same rows. `inputs` and `outputs` of each layer may be rounded up, with zeros for
    weights: whole tiles of a processor's matrix unit are faster than a ragged end.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None] = (),
        *,
        rows: int,
        device: torch.device,
        dtype: torch.dtype,
        inputs: int = 0,
        outputs: int = 0,
    ) -> None:
        padded = [F.pad(w, (0, max(0, inputs - w.shape[1]), 0, max(0, outputs - len(w)))) for w in weights]
        self.weight = torch.cat(padded).detach().to(device, dtype)
        given = [F.pad(bias, (0, max(0, outputs - len(bias)))) for bias in biases if bias is not None]
        self.bias = torch.cat(given).detach().to(device, dtype) if given else None
        self.packed = device.type == "cpu" and _worth_packing(rows, dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)

    def activated(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """`activation` of the product; of its unrounded value if one operation does both."""
        if self.packed and activation is F.gelu:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
        return activation(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The product, times `other` element by element."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "mul")
        return self(x) * other


def _worth_packing(rows: int, dtype: torch.dtype) -> bool:
    """Whether this build of torch has the blocked layout for `dtype` and that layout is faster."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operators, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(operators._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(operators._is_mkldnn_fp16_supported())
    return rows >= LEAST_PACKED_ROWS

"""DALL·E mini's BART for inference: a caption's pieces to encoder states, and codes so far to logits of the next.

Architecture: Dayma et al., "DALL·E mini", 2021, after BART (Lewis et al., 2019) with the norms of NormFormer (Shleifer
et al., 2021) and gated linear units (Shazeer, 2020). Parameter names are those of min-dalle's `state_dict` under
`encoder.` and `decoder.`; `models/bart/names.py` renames those of dalle-mini. This file is the plain arithmetic;
`models/bart/generator.py` draws images with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bart.config import DalleBartConfig

NORM_EPS = 1e-5
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # those of `BUILT`
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


class Norm(nn.Module):
    """Layer norm, or its root mean square kind (Zhang and Sennrich, 2019), which has no bias and subtracts no mean.

    The scale is left out if a dense layer follows, as in the reference.
    """

    def __init__(self, size: int, *, scale: bool, kind: str) -> None:
        super().__init__()
        self.size = size
        self.centred = kind == "layernorm"
        self.weight = nn.Parameter(torch.ones(size)) if scale else None
        self.bias = nn.Parameter(torch.zeros(size)) if self.centred else None

    def forward(self, x: Tensor) -> Tensor:
        if self.centred:
            return F.layer_norm(x, (self.size,), self.weight, self.bias, NORM_EPS)
        return F.rms_norm(x, (self.size,), self.weight, NORM_EPS)


def dense_norm(config: DalleBartConfig, size: int) -> Norm:
    """The norm in front of a dense layer."""
    return Norm(size, scale=config.force_ln_scale, kind=config.ln_type)


def branch_norm(config: DalleBartConfig) -> nn.Module:
    """The norm that closes an attention branch in front of the sum: NormFormer's, absent in plain pre-norm layers."""
    return Norm(config.d_model, scale=True, kind=config.ln_type) if config.closes_branches else nn.Identity()


class Attention(nn.Module):
    """Multi-head attention with queries scaled by 1/sqrt(head size)."""

    def __init__(self, size: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(size, size, bias=bias)
        self.k_proj = nn.Linear(size, size, bias=bias)
        self.v_proj = nn.Linear(size, size, bias=bias)
        self.out_proj = nn.Linear(size, size, bias=bias)

    def forward(self, x: Tensor, states: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """`x` [N, T, D] attends to `states` [N, L, D], where `mask` is True."""
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(states)), self.split(self.v_proj(states))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, heads, T, D / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two dense layers; with `use_glu` a third gates the first (a GLU)."""

    def __init__(self, config: DalleBartConfig, hidden: int) -> None:
        super().__init__()
        size, bias = config.d_model, config.use_bias
        self.activation = ACTIVATIONS[config.activation_function]
        self.ln0 = dense_norm(config, size)
        self.fc0 = nn.Linear(size, hidden, bias=bias)
        self.fc1 = nn.Linear(size, hidden, bias=bias) if config.use_glu else None
        self.ln1 = dense_norm(config, hidden) if config.closes_branches else nn.Identity()
        self.fc2 = nn.Linear(hidden, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln0(x)
        hidden = self.activation(self.fc0(x))
        if self.fc1 is not None:
            hidden = hidden * self.fc1(x)
        return self.fc2(self.ln1(hidden))


class EncoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size = config.d_model
        self.pre_self_attn_layer_norm = dense_norm(config, size)
        self.self_attn = Attention(size, config.encoder_attention_heads, bias=config.use_bias)
        self.self_attn_layer_norm = branch_norm(config)
        self.glu = FeedForward(config, config.encoder_ffn_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(normed, normed, mask))
        return x + self.glu(x)


class DecoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size, heads, bias = config.d_model, config.decoder_attention_heads, config.use_bias
        self.pre_self_attn_layer_norm = dense_norm(config, size)
        self.self_attn = Attention(size, heads, bias=bias)
        self.self_attn_layer_norm = branch_norm(config)
        self.pre_encoder_attn_layer_norm = dense_norm(config, size)
        self.encoder_attn = Attention(size, heads, bias=bias)
        self.encoder_attn_layer_norm = branch_norm(config)
        self.glu = FeedForward(config, config.decoder_ffn_dim)

    def forward(self, x: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        normed = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(normed, normed, causal=True))
        x = x + self.encoder_attn_layer_norm(self.encoder_attn(self.pre_encoder_attn_layer_norm(x), states, mask))
        return x + self.glu(x)


class Encoder(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size = config.d_model
        self.embedding_scale = config.embedding_scale
        self.embed_tokens = nn.Embedding(config.encoder_vocab_size, size)
        self.embed_positions = nn.Embedding(config.max_text_length, size)
        self.layernorm_embedding = Norm(size, scale=True, kind=config.ln_type)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.final_ln = dense_norm(config, size) if config.use_final_ln_encoder else nn.Identity()

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed_tokens(input_ids) * self.embedding_scale + self.embed_positions.weight[: input_ids.shape[1]]
        x = self.layernorm_embedding(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_ln(x)


class Decoder(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size = config.d_model
        self.embedding_scale = config.embedding_scale
        self.embed_tokens = nn.Embedding(config.output_size, size)
        self.embed_positions = nn.Embedding(config.image_length, size)
        self.layernorm_embedding = Norm(size, scale=True, kind=config.ln_type)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.final_ln = dense_norm(config, size)
        self.lm_head = nn.Linear(size, config.output_size, bias=False)

    def forward(self, ids: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        x = self.embed_tokens(ids) * self.embedding_scale + self.embed_positions.weight[: ids.shape[1]]
        x = self.layernorm_embedding(x)
        for layer in self.layers:
            x = layer(x, states, mask)
        return self.lm_head(self.final_ln(x))


class DalleBart(nn.Module):
    """The two halves. Masked positions of a caption have no influence; a mask without a True gives NaN."""

    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pieces int [N, L], mask [N, L] (1 = real), L at most `max_text_length` -> states [N, L, d_model]."""
        return self.encoder(input_ids, broadcast_mask(attention_mask))

    def logits(self, decoder_input_ids: Tensor, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Teacher forcing: the start id and codes int [N, T] -> logits [N, T, image_vocab_size + 1]."""
        return self.decoder(decoder_input_ids, states, broadcast_mask(attention_mask))


def broadcast_mask(attention_mask: Tensor) -> Tensor:
    """[N, L] of 0 and 1 -> bool [N, 1, 1, L], for every head and query."""
    return attention_mask.bool()[:, None, None, :]

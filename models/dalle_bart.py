"""DALL·E mini's BART for inference: a caption's pieces to encoder states, and codes so far to logits of the next.

Architecture: Dayma et al., "DALL·E mini", 2021, after BART (Lewis et al., 2019) with the norms of NormFormer (Shleifer
et al., 2021) and gated linear units (Shazeer, 2020). Parameter names are those of min-dalle's `state_dict` under
`encoder.` and `decoder.`. This file is the plain arithmetic; `models/token_generator.py` draws pictures with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.vqgan import ConfigError

NORM_EPS = 1e-5


@dataclass(frozen=True)
class DalleBartConfig:
    """Geometry and options of a DALL·E BART; names are those of dalle-mini's `config.json`.

    `image_vocab_size` is the number of ids that the decoder can be fed or predict, less the one row more that both its
    tables have; ids at and above the codebook of the VQGAN are no codes. `decoder_start_token_id` begins every picture.
    """

    encoder_vocab_size: int = 50264
    image_vocab_size: int = 16384
    image_length: int = 256
    max_text_length: int = 64
    d_model: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 2730
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 2730
    decoder_attention_heads: int = 16
    decoder_start_token_id: int = 16384
    use_bias: bool = False
    force_ln_scale: bool = False
    use_final_ln_encoder: bool = True
    use_final_ln_decoder: bool = True
    normalize_text: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and int(value) < (0 if field.name == "decoder_start_token_id" else 1):
                raise ConfigError(f"DALL·E BART config: {field.name} must be positive, not {value}")
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                raise ConfigError(
                    f"DALL·E BART config: d_model {self.d_model} is not a multiple of {heads} {side} heads"
                )
        if self.decoder_start_token_id > self.image_vocab_size:
            raise ConfigError(
                f"DALL·E BART config: decoder_start_token_id {self.decoder_start_token_id} is past the last row "
                f"of the embedding, {self.image_vocab_size}"
            )

    @property
    def output_size(self) -> int:
        """Rows of the decoder's embedding and of `lm_head`."""
        return self.image_vocab_size + 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DalleBartConfig:
        """Read a configuration. Raises `ConfigError` for options that change the network and that are not built."""
        for name, built in SUPPORTED.items():
            if name in values and values[name] not in built:
                expected = " or ".join(str(value) for value in built)
                raise ConfigError(f"DALL·E BART config: {name}={values[name]} is not supported, only {expected}")
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except TypeError as error:
            raise ConfigError(f"DALL·E BART config: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)


SUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu",),
    "ln_type": ("layernorm",),
    "ln_positions": ("normformer",),
    "use_glu": (True,),
    "use_head_scale": (False,),
    "use_cosine_attention": (False,),
    "use_alibi": (False,),
    "use_absolute_position_embeddings": (True,),
    "use_swin_position_embeddings": (False,),
    "use_deepnet_scaling": (False,),
    "use_subln_init": (False,),
    "scale_embedding": (False,),
    "tie_word_embeddings": (False,),
    "sinkhorn_iters": (1,),
}


class Norm(nn.Module):
    """Layer norm whose scale is left out where a dense layer follows it, as the reference does."""

    def __init__(self, size: int, *, scale: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size)) if scale else None
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.bias.shape, self.weight, self.bias, NORM_EPS)


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
        """`x` [N, T, D] attends to `states` [N, L, D]; `mask` bool, True where there is something to attend to."""
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(states)), self.split(self.v_proj(states))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, heads, T, D / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GLU(nn.Module):
    """Gated linear unit between two norms."""

    def __init__(self, size: int, hidden: int, *, bias: bool, scale: bool) -> None:
        super().__init__()
        self.ln0 = Norm(size, scale=scale)
        self.fc0 = nn.Linear(size, hidden, bias=bias)
        self.fc1 = nn.Linear(size, hidden, bias=bias)
        self.ln1 = Norm(hidden, scale=scale)
        self.fc2 = nn.Linear(hidden, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln0(x)
        return self.fc2(self.ln1(F.gelu(self.fc0(x)) * self.fc1(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size, bias, scale = config.d_model, config.use_bias, config.force_ln_scale
        self.pre_self_attn_layer_norm = Norm(size, scale=scale)
        self.self_attn = Attention(size, config.encoder_attention_heads, bias=bias)
        self.self_attn_layer_norm = Norm(size, scale=True)
        self.glu = GLU(size, config.encoder_ffn_dim, bias=bias, scale=scale)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(normed, normed, mask))
        return x + self.glu(x)


class DecoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size, heads, bias, scale = (
            config.d_model, config.decoder_attention_heads, config.use_bias, config.force_ln_scale,
        )  # fmt: skip
        self.pre_self_attn_layer_norm = Norm(size, scale=scale)
        self.self_attn = Attention(size, heads, bias=bias)
        self.self_attn_layer_norm = Norm(size, scale=True)
        self.pre_encoder_attn_layer_norm = Norm(size, scale=scale)
        self.encoder_attn = Attention(size, heads, bias=bias)
        self.encoder_attn_layer_norm = Norm(size, scale=True)
        self.glu = GLU(size, config.decoder_ffn_dim, bias=bias, scale=scale)

    def forward(self, x: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        normed = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(normed, normed, causal=True))
        x = x + self.encoder_attn_layer_norm(self.encoder_attn(self.pre_encoder_attn_layer_norm(x), states, mask))
        return x + self.glu(x)


class Encoder(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size = config.d_model
        self.embed_tokens = nn.Embedding(config.encoder_vocab_size, size)
        self.embed_positions = nn.Embedding(config.max_text_length, size)
        self.layernorm_embedding = Norm(size, scale=True)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.final_ln = Norm(size, scale=config.force_ln_scale) if config.use_final_ln_encoder else nn.Identity()

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed_tokens(input_ids) + self.embed_positions.weight[: input_ids.shape[1]]
        x = self.layernorm_embedding(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_ln(x)


class Decoder(nn.Module):
    def __init__(self, config: DalleBartConfig) -> None:
        super().__init__()
        size = config.d_model
        self.embed_tokens = nn.Embedding(config.output_size, size)
        self.embed_positions = nn.Embedding(config.image_length, size)
        self.layernorm_embedding = Norm(size, scale=True)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.final_ln = Norm(size, scale=config.force_ln_scale) if config.use_final_ln_decoder else nn.Identity()
        self.lm_head = nn.Linear(size, config.output_size, bias=False)

    def forward(self, ids: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        x = self.embed_tokens(ids) + self.embed_positions.weight[: ids.shape[1]]
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

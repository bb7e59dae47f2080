"""DALL·E mini's BART for inference: a caption's pieces to encoder states, and codes so far to logits of the next.

Architecture: Dayma et al., "DALL·E mini", 2021, after BART (Lewis et al., 2019) with the norms of NormFormer (Shleifer
et al., 2021) and gated linear units (Shazeer, 2020). Parameter names are those of min-dalle's `state_dict` under
`encoder.` and `decoder.`; `models/bart/names.py` renames those of dalle-mini. This file is the plain arithmetic;
`models/bart/generator.py` draws images with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.devices import gpu_bytes
from models.errors import ConfigError
from models.weights.checks import MOST, MOST_LAYERS

NORM_EPS = 1e-5
CPU_CACHE_BYTES = 2 << 30  # of the keys and values of all images that are drawn at once
GPU_CACHE_SHARE = 0.25  # of the GPU's memory, for the same
VALUE_BYTES = {"cpu": 4, "cuda": 2}
MOST_IMAGES = {"cpu": 64, "cuda": 256}  # drawn at once: more makes a device hardly faster
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
# Options of dalle-mini that change the network, with the values that are implemented: each is compared with outputs
# of dalle-mini itself in `tests/models/bart/test_network.py`. Any other value is refused by name.
BUILT: dict[str, tuple[object, ...]] = {
    "activation_function": tuple(ACTIVATIONS),
    "force_ln_scale": (False, True),
    "ln_positions": ("normformer", "preln"),
    "ln_type": ("layernorm", "rmsnorm"),
    "scale_embedding": (False, True),
    "sinkhorn_iters": (1,),
    "tie_word_embeddings": (False,),
    "use_absolute_position_embeddings": (True,),
    "use_alibi": (False,),
    "use_bias": (False, True),
    "use_cosine_attention": (False,),
    "use_deepnet_scaling": (False,),
    "use_final_ln_decoder": (True,),
    "use_final_ln_encoder": (False, True),
    "use_glu": (False, True),
    "use_head_scale": (False,),
    "use_swin_position_embeddings": (False,),
}


@dataclass(frozen=True)
class DalleBartConfig:
    """Geometry and options of a DALL·E BART; names are those of dalle-mini's `config.json`.

    `image_vocab_size` is the number of ids that the decoder can be fed or predict, less the one row more that both its
    tables have; ids at and above the codebook of the VQGAN are no codes. `decoder_start_token_id` begins every image.
    Raises `ConfigError` for values that make no network, or one that is not implemented (`BUILT`).
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
    normalize_text: bool = False
    activation_function: str = "gelu"
    force_ln_scale: bool = False
    ln_positions: str = "normformer"
    ln_type: str = "layernorm"
    scale_embedding: bool = False
    use_bias: bool = False
    use_final_ln_encoder: bool = True
    use_glu: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in BUILT:
                check_built(field.name, value)
            elif field.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"DALL·E BART config: {field.name} must be true or false, not {value!r}")
            elif field.type == "int" and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"DALL·E BART config: {field.name} must be a whole number, not {value!r}")
            elif field.type == "int" and value < (0 if field.name == "decoder_start_token_id" else 1):
                raise ConfigError(f"DALL·E BART config: {field.name} must be positive, not {value}")
            elif field.type == "int" and value > (most := MOST_LAYERS if field.name.endswith("_layers") else MOST):
                raise ConfigError(f"DALL·E BART config: {field.name} must be at most {most}, not {value}")
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

    @property
    def closes_branches(self) -> bool:
        """Whether a norm stands after each attention and inside each feed-forward (NormFormer), or only before."""
        return self.ln_positions == "normformer"

    @property
    def embedding_scale(self) -> float:
        """The factor on the embeddings of text and codes, before positions are added."""
        return math.sqrt(self.d_model) if self.scale_embedding else 1.0

    @property
    def flops(self) -> float:
        """Roughly what the codes of one image cost, with guidance: every weight of the decoder, twice a code."""
        width = self.d_model
        layer = 6 * width * width + 3 * width * self.decoder_ffn_dim
        weights = self.decoder_layers * layer + width * self.image_vocab_size
        return 2.0 * 2 * weights * self.image_length

    def batch_size(self, device: str) -> int:
        """The default for "cpu" or "cuda": a power of two of images whose caches, of both halves of guidance, fit."""
        cached = 2 * 2 * self.decoder_layers * self.image_length * self.d_model * VALUE_BYTES[device]
        budget = GPU_CACHE_SHARE * gpu_bytes() if device == "cuda" else CPU_CACHE_BYTES
        images = 1
        while 2 * images <= MOST_IMAGES[device] and 2 * images * cached <= budget:
            images *= 2
        return images

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DalleBartConfig:
        """Read a configuration; keys that say nothing about the network are ignored.

        Raises `ConfigError` for options of dalle-mini that change the network and that are not built.
        """
        for name in BUILT:
            if name in values:
                check_built(name, values[name])
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)


def check_built(name: str, value: object) -> None:
    """Raise `ConfigError` where an option has a value that is not built."""
    built = BUILT[name]
    if not any(value == each and type(value) is type(each) for each in built):
        expected = " or ".join(_json(each) for each in built)
        raise ConfigError(f"DALL·E BART config: {name} {_json(value)} is not supported, only {expected}")


def _json(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


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
        """`x` [N, T, D] attends to `states` [N, L, D]; `mask` bool, True where there is something to attend to."""
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(states)), self.split(self.v_proj(states))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, heads, T, D / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two dense layers, the first gated by a third (a GLU) unless the configuration says otherwise."""

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

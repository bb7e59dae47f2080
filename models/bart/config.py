"""The geometry and options of a DALL·E BART, read from its `config.json` and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.devices import INT8, gpu_bytes, largest_batch
from models.errors import ConfigError
from models.weights.checks import MOST, MOST_LAYERS

CPU_CACHE_BYTES = 2 << 30  # of the keys and values of all images that are drawn at once
GPU_CACHE_SHARE = 0.25  # of the GPU's memory, for the same
VALUE_BYTES = {"cpu": 4, "cuda": 2}
LEAST_COMPILED_BYTES = 1 << 26  # of weights: what stays in caches gains little, and compiling takes seconds
MOST_IMAGES = {"cpu": 64, "cuda": 256}  # drawn at once: more makes a device hardly faster
# Options of dalle-mini that change the network, with the values that are implemented: each is compared with outputs
# of dalle-mini itself in `tests/models/bart/test_network.py`. Any other value is refused by name.
BUILT: dict[str, tuple[object, ...]] = {
    "activation_function": ("gelu", "gelu_new", "relu", "silu", "swish"),
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
            least = 0 if field.name == "decoder_start_token_id" else 1
            most = MOST_LAYERS if field.name.endswith("_layers") else MOST
            if field.name in BUILT:
                check_built(field.name, value)
            elif field.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"DALL·E BART config: {field.name} must be true or false, not {value!r}")
            elif field.type == "int" and (type(value) is not int or not least <= value <= most):
                raise ConfigError(f"DALL·E BART config: {field.name} must be {least} to {most}, not {value!r}")
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
    def decoder_weights(self) -> int:
        """The number of weights in the decoder's layers."""
        return self.decoder_layers * (6 * self.d_model**2 + 3 * self.d_model * self.decoder_ffn_dim)

    def is_large(self, dtype: str) -> bool:
        """Whether compiling its decoder for a CPU pays, if weights are held in `dtype`. int8 has no other decoder."""
        width = {"bfloat16": 2, "float16": 2}.get(dtype, 4)
        return dtype == INT8 or self.decoder_weights * width >= LEAST_COMPILED_BYTES

    @property
    def flops(self) -> float:
        """Roughly what the codes of one image cost, with guidance: every weight of the decoder, twice a code."""
        return 2.0 * 2 * (self.decoder_weights + self.d_model * self.image_vocab_size) * self.image_length

    def batch_size(self, device: str, gpu: int | None = None) -> int:
        """The default for "cpu" or "cuda": a power of two of images whose caches, of both halves of guidance, fit.

        `gpu` is the memory of a GPU of another machine, in bytes; None for one of this.
        """
        cached = 2 * 2 * self.decoder_layers * self.image_length * self.d_model * VALUE_BYTES[device]
        budget = GPU_CACHE_SHARE * (gpu or gpu_bytes()) if device == "cuda" else CPU_CACHE_BYTES
        return largest_batch(cached, budget, MOST_IMAGES[device])

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
    """Raise `ConfigError` if an option has a value that is not built."""
    built = BUILT[name]
    if not any(value == each and type(value) is type(each) for each in built):
        expected = " or ".join(_json(each) for each in built)
        raise ConfigError(f"DALL·E BART config: {name} {_json(value)} is not supported, only {expected}")


def _json(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)

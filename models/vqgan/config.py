"""The geometry of a VQGAN, read from its `config.json` and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.errors import ConfigError
from models.image_tokenizer import TokenizerSpec
from models.weights.checks import MOST, MOST_BLOCKS

GROUPS = 32  # of every GroupNorm in the reference


@dataclass(frozen=True)
class VQGANConfig:
    """Geometry of a VQGAN; names are those of vqgan-jax's `config.json`.

    `pixel_range` is what the network reads and writes: (0, 1) for vqgan-jax and dalle-mini, (-1, 1) for taming and its
    relatives. `quantizer` is "nearest" (VQ) or "gumbel". `attn_resolutions` are sides of feature maps for images of
    `resolution` pixels.
    """

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    resolution: int = 256
    z_channels: int = 256
    embed_dim: int = 256
    n_embed: int = 16384
    in_channels: int = 3
    out_ch: int = 3
    quantizer: str = "nearest"
    pixel_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        sizes = {name: (getattr(self, name),) for name in ("ch", "resolution", "z_channels", "embed_dim", "n_embed")}
        for name, values in (sizes | {"ch_mult": self.ch_mult, "num_res_blocks": (self.num_res_blocks,)}).items():
            most = MOST if name in sizes else MOST_BLOCKS
            if not values or any(type(value) is not int or not 1 <= value <= most for value in values):
                raise ConfigError(f"VQGAN config: {name} must be 1 to {most}, not {getattr(self, name)!r}")
        if self.quantizer not in ("nearest", "gumbel"):
            raise ConfigError(f"VQGAN config: quantizer must be 'nearest' or 'gumbel', not {self.quantizer!r}")
        if self.in_channels != 3 or self.out_ch != 3:
            raise ConfigError("VQGAN config: only RGB models (in_channels 3, out_ch 3) are supported")
        if self.resolution % self.factor:
            raise ConfigError(f"VQGAN config: resolution {self.resolution} is not a multiple of {self.factor}")
        if any(self.ch * mult % GROUPS for mult in self.ch_mult):
            raise ConfigError(f"VQGAN config: ch x ch_mult must be multiples of {GROUPS}")
        if [type(value) in (int, float) for value in self.pixel_range] != [True, True]:
            raise ConfigError(f"VQGAN config: pixel_range must be two numbers, not {list(self.pixel_range)}")
        if not self.pixel_range[0] < self.pixel_range[1]:
            raise ConfigError(f"VQGAN config: pixel_range {self.pixel_range} is empty")

    @property
    def factor(self) -> int:
        """Pixels a side that one code stands for."""
        return 2 ** (len(self.ch_mult) - 1)

    def spec(self, *, name: str, format: str = "vqbeam", has_encoder: bool = True) -> TokenizerSpec:
        """What other code may know of a VQGAN of this geometry."""
        widths = [(self.ch * mult, self.resolution / 2**level) for level, mult in enumerate(self.ch_mult)]
        return TokenizerSpec(
            name=name,
            format=format,
            resolution=self.resolution,
            factor=self.factor,
            codebook_size=self.n_embed,
            # Of the 3x3 convolutions of the encoder.
            flops=sum((2 * 9 * width * width * side * side * 2 * self.num_res_blocks for width, side in widths), 0.0),
            image_bytes=4 * max(width * side * side for width, side in widths),
            has_encoder=has_encoder,
            pixel_range=self.pixel_range,
            nearest=self.quantizer == "nearest",
            has_latents=True,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VQGANConfig:
        """Read a configuration; keys that say nothing about geometry are ignored.

        Raises `ConfigError` for options of the reference that change the network and that we do not build.
        """
        refused = {
            "resamp_with_conv": False,
            "give_pre_end": True,
            "double_z": True,
            "tanh_out": True,
            "use_linear_attn": True,
        }
        for name, value in refused.items():
            if name in values and bool(values[name]) is value:
                raise ConfigError(f"VQGAN config: {name}={value} is not supported")
        known = {field.name for field in fields(cls)}
        taken = {name: value for name, value in values.items() if name in known}
        for name in ("ch_mult", "attn_resolutions", "pixel_range"):
            if name in taken:
                value = taken[name]
                taken[name] = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        try:
            return cls(**taken)
        except TypeError as error:
            raise ConfigError(f"VQGAN config: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

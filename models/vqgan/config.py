"""The geometry of a VQGAN, read from its `config.json` and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from models.errors import ConfigError
from models.image_tokenizer import CENTER_CROP, TokenizerSpec
from models.weights.checks import MOST, MOST_BLOCKS

GROUPS = 32  # of every GroupNorm in the reference
SIGNS, HIGH_SIGNS = "signs", "signs, highest first"
QUANTIZERS = ("nearest", "gumbel", "cosine", "dot", SIGNS, HIGH_SIGNS)
NEAREST = ("nearest", "cosine")  # those whose codes are points among the latents
TAMING, MAGVIT2, MASKGIT, EMU3 = "taming", "magvit2", "maskgit", "emu3"
NETWORKS = (TAMING, MAGVIT2, MASKGIT, EMU3)
OF_SOME_FAMILIES = ("preprocessing", "middle_attention", "encoder_levels", "decoder_levels", "network", "frames")


class LevelShape(NamedTuple):
    """The residual blocks at one resolution: their width and number, and whether attention follows each."""

    width: int
    blocks: int
    attention: bool


@dataclass(frozen=True)
class VQGANConfig:
    """Geometry of a VQGAN; names are those of vqgan-jax's `config.json`.

    `pixel_range` is what the network reads and writes: (0, 1) for vqgan-jax and dalle-mini, (-1, 1) for taming and its
    relatives. `quantizer` is the rule that chooses a code, one of `QUANTIZERS`. `attn_resolutions` are sides of feature
    maps for images of `resolution` pixels. `preprocessing` is what `ImageOptions.resize` calls the family's own.

    Other families have halves that differ or follow no multiples: `encoder_levels` and `decoder_levels`, finest first,
    then take the place of `ch_mult`, `num_res_blocks` and `attn_resolutions`; `ch` is the width of the first
    convolution. `middle_attention` is that between the middle blocks. `network` is whose blocks these are: taming's, or
    those of `models/vqgan/convolutions.py` or `models/vqgan/emu3_network.py`, of which an image is `frames` frames.
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
    preprocessing: str = CENTER_CROP
    middle_attention: bool = True
    encoder_levels: tuple[LevelShape, ...] = ()
    decoder_levels: tuple[LevelShape, ...] = ()
    network: str = TAMING
    frames: int = 1

    def __post_init__(self) -> None:
        sizes = {name: (getattr(self, name),) for name in ("ch", "resolution", "z_channels", "embed_dim", "n_embed")}
        for name, values in (sizes | {"ch_mult": self.ch_mult, "num_res_blocks": (self.num_res_blocks,)}).items():
            most = MOST if name in sizes else MOST_BLOCKS
            if not values or any(type(value) is not int or not 1 <= value <= most for value in values):
                raise ConfigError(f"VQGAN config: {name} must be 1 to {most}, not {getattr(self, name)!r}")
        if self.quantizer not in QUANTIZERS:
            raise ConfigError(f"VQGAN config: quantizer must be one of {', '.join(QUANTIZERS)}, not {self.quantizer!r}")
        if self.network not in NETWORKS:
            raise ConfigError(f"VQGAN config: network must be one of {', '.join(NETWORKS)}, not {self.network!r}")
        if self.network != TAMING and not self.encoder_levels:
            raise ConfigError(f"VQGAN config: network {self.network} needs encoder_levels and decoder_levels")
        if self.network in (MAGVIT2, MASKGIT) and self.middle_attention:
            raise ConfigError(f"VQGAN config: network {self.network} has no attention")
        if type(self.frames) is not int or not 1 <= self.frames <= MOST_BLOCKS or self.frames & (self.frames - 1):
            raise ConfigError(f"VQGAN config: frames must be a power of two, not {self.frames!r}")
        if self.quantizer in (SIGNS, HIGH_SIGNS) and self.n_embed != 2**self.embed_dim:
            raise ConfigError(f"VQGAN config: {self.embed_dim} signs make no {self.n_embed} codes")
        if bool(self.encoder_levels) != bool(self.decoder_levels):
            raise ConfigError("VQGAN config: encoder_levels and decoder_levels go together")
        if len(self.encoder_levels) != len(self.decoder_levels):
            raise ConfigError("VQGAN config: encoder and decoder must have as many levels")
        if self.in_channels != 3 or self.out_ch != 3:
            raise ConfigError("VQGAN config: only RGB models (in_channels 3, out_ch 3) are supported")
        if self.resolution % self.factor:
            raise ConfigError(f"VQGAN config: resolution {self.resolution} is not a multiple of {self.factor}")
        for level in (*self.encoder_levels, *self.decoder_levels):
            if not (1 <= level.width <= MOST and 1 <= level.blocks <= MOST_BLOCKS):
                raise ConfigError(f"VQGAN config: a level of {level.blocks} blocks {level.width} wide is not supported")
        if any(level.width % GROUPS for level in (*self.levels_down, *self.levels_up)):
            raise ConfigError(f"VQGAN config: ch x ch_mult must be multiples of {GROUPS}")
        if [type(value) in (int, float) for value in self.pixel_range] != [True, True]:
            raise ConfigError(f"VQGAN config: pixel_range must be two numbers, not {list(self.pixel_range)}")
        if not self.pixel_range[0] < self.pixel_range[1]:
            raise ConfigError(f"VQGAN config: pixel_range {self.pixel_range} is empty")

    @property
    def factor(self) -> int:
        """Pixels a side that one code stands for."""
        return 2 ** (len(self.encoder_levels or self.ch_mult) - 1)

    @property
    def levels_down(self) -> tuple[LevelShape, ...]:
        """The levels of the encoder, finest first."""
        return self.encoder_levels or self._levels(self.num_res_blocks)

    @property
    def levels_up(self) -> tuple[LevelShape, ...]:
        """The levels of the decoder, finest first."""
        return self.decoder_levels or self._levels(self.num_res_blocks + 1)

    def _levels(self, blocks: int) -> tuple[LevelShape, ...]:
        return tuple(
            LevelShape(self.ch * mult, blocks, self.resolution // 2**i in self.attn_resolutions)
            for i, mult in enumerate(self.ch_mult)
        )

    def at(self, resolution: int) -> VQGANConfig:
        """The same network for images of another size: attention stays in the levels where it is."""
        attention = tuple(resolution // 2**i for i, level in enumerate(self.levels_down) if level.attention)
        return replace(self, resolution=resolution, attn_resolutions=attention)

    def spec(
        self, *, name: str, format: str = "vqbeam", has_encoder: bool = True, has_decoder: bool = True
    ) -> TokenizerSpec:
        """What other code may know of a VQGAN of this geometry."""
        levels = [(level, self.resolution / 2**i) for i, level in enumerate(self.levels_down)]
        return TokenizerSpec(
            name=name,
            format=format,
            resolution=self.resolution,
            factor=self.factor,
            codebook_size=self.n_embed,
            # Of the 3x3 convolutions of the encoder.
            flops=sum((2 * 9 * level.width**2 * side * side * 2 * level.blocks for level, side in levels), 0.0),
            image_bytes=4 * max(level.width * side * side for level, side in levels),
            has_encoder=has_encoder,
            has_decoder=has_decoder,
            pixel_range=self.pixel_range,
            nearest=self.quantizer in NEAREST,
            has_latents=True,
            preprocessing=self.preprocessing,
            any_grid=True,
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
        for name in ("encoder_levels", "decoder_levels"):
            if name in taken:
                taken[name] = tuple(LevelShape(*level) for level in taken[name])
        try:
            return cls(**taken)
        except TypeError as error:
            raise ConfigError(f"VQGAN config: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values; what only some families have is left out where it is the default."""
        defaults = {name: getattr(VQGANConfig, name) for name in OF_SOME_FAMILIES}
        kept = {name: value for name, value in asdict(self).items() if defaults.get(name, ...) != value}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

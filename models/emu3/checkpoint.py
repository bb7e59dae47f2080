"""Open Emu3's tokenizer for still images: the folder of its own repository, or transformers', alone or in a whole Emu3.

`config.json` says all of the network, but not the size of images: Emu3 takes them as they are, within bounds of area.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.emu3.names import COUNTER, ours
from models.errors import ConfigError
from models.image_tokenizer import TokenizerOptions
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import EMU3, LevelShape, VQGANConfig
from models.weights.native import CONFIG_NAME, configured, folder_name, json_beside
from models.weights.parts import candidates, mentions, open_parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "emu3"
MODEL_TYPES = ("Emu3VisionVQ", "emu3_vqgan", "emu3")  # in config.json: Emu3's own, transformers', and a whole Emu3
FIRST = "quant_conv.conv.weight"
# Keys of Emu3's own config.json by transformers', with transformers' defaults, which are those of the published one.
KEYS: Mapping[str, tuple[str, Any]] = {
    "base_channels": ("ch", 256),
    "channel_multiplier": ("ch_mult", [1, 2, 2, 4]),
    "num_res_blocks": ("num_res_blocks", 2),
    "attn_resolutions": ("attn_resolutions", [3]),
    "latent_channels": ("z_channels", 4),
    "double_latent": ("double_z", False),
    "embed_dim": ("embed_dim", 4),
    "codebook_size": ("codebook_size", 32768),
    "temporal_downsample_factor": ("temporal_downsample_factor", 4),
}
SUPPORTED: Mapping[str, Any] = {"double_latent": False, "num_attention_heads": 1, "in_channels": 3, "out_channels": 3}


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`."""
    if json_beside(path if path.is_dir() else path.parent).get("model_type") not in MODEL_TYPES:
        return None
    return next((file for file in candidates(path) if mentions(file, FIRST)), None)


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `ConfigError` unless `options` give the image size, and for a network that is another.
    """
    options.check_one_set(path)
    options.check_size(path, "the tokenizer of Emu3 takes images of many sizes", "512 and 720 are in use")
    parts = open_parts(path)
    prefix = parts.prefix_of(FIRST)
    stored = json_beside(path.parent)

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for name, leaf in parts.read(prefix):
            if not name.endswith(COUNTER):
                yield ours(name, leaf)

    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.parent),
        config=configured(_config, stored.get("vq_config") or stored, path.parent / CONFIG_NAME),
        files=parts.files(prefix),
        leaves=leaves,
    )
    return opened.under(options)


def _config(stored: Mapping[str, Any]) -> VQGANConfig:
    said = {name: stored.get(name, stored.get(old, default)) for name, (old, default) in KEYS.items()}
    for name, wanted in SUPPORTED.items():
        if stored.get(name, said.get(name, wanted)) != wanted:
            raise ConfigError(f"{name} {stored.get(name, said.get(name))!r} is not supported; expected {wanted}")
    try:
        mults = [int(mult) for mult in said["channel_multiplier"]]
        ch, blocks, attention = int(said["base_channels"]), int(said["num_res_blocks"]), set(said["attn_resolutions"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sizes that are none: {error}") from error
    if any(mults[level] != mults[-1] for level in attention if 0 <= level < len(mults)):
        raise ConfigError("attention in levels of other widths than the last is not supported")
    levels = [(ch * mult, number in attention) for number, mult in enumerate(mults)]
    return VQGANConfig(
        ch=ch,
        encoder_levels=tuple(LevelShape(width, blocks, attended) for width, attended in levels),
        decoder_levels=tuple(LevelShape(width, blocks + 1, attended) for width, attended in levels),
        attn_resolutions=(),
        resolution=16 << (len(mults) - 1),
        z_channels=said["latent_channels"],
        embed_dim=said["embed_dim"],
        n_embed=said["codebook_size"],
        frames=said["temporal_downsample_factor"],
        network=EMU3,
        pixel_range=(-1.0, 1.0),
    )

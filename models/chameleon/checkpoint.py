"""Open transformers' folder of a Chameleon VQGAN: the encoder of taming's network; a decoder is rarely with it.

The original checkpoint, `vqgan.ckpt` with `vqgan.yaml`, is one of taming's, which `models/vqgan` opens, and has both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ConfigError
from models.image_tokenizer import TokenizerOptions
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import VQGANConfig
from models.vqgan.geometry import geometry
from models.vqgan.names import levels_in, mirrored
from models.weights.native import CONFIG_NAME, configured, folder_name, json_beside
from models.weights.parts import candidates, mentions, open_parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "chameleon"
MODEL_TYPES = ("chameleon", "chameleon_vqgan")  # in config.json: the whole model, and its tokenizer alone
FIRST = "encoder.conv_in.weight"
RESOLUTION = 512  # transformers' default
DECODER = ("decoder.", "post_quant_conv.")  # the second is there without the first, too
COARSEST_FIRST = "decoder.up.0.upsample.conv.weight"  # taming's decoder has no such weight: `up.0` is its finest level


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`."""
    if json_beside(path if path.is_dir() else path.parent).get("model_type") not in MODEL_TYPES:
        return None
    return next((file for file in candidates(path) if mentions(file, FIRST)), None)


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found. Raises `CheckpointError` for weights of another network, `ConfigError` as `under` does."""
    options.check_one_set(path)
    parts = open_parts(path)
    prefix = parts.prefix_of(FIRST)

    shorter = [name.removeprefix(prefix) for name in parts.where]
    has_decoder = "decoder.conv_in.weight" in shorter
    levels = levels_in(shorter) if COARSEST_FIRST in shorter else 0

    def leaves(only_shapes: bool = False) -> Iterator[tuple[str, Tensor]]:
        for name, leaf in parts.read(prefix, only_shapes=only_shapes):
            if has_decoder or not name.startswith(DECODER):
                yield mirrored(name, levels) if levels else name, leaf

    stored = json_beside(path.parent)
    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.parent),
        config=configured(
            partial(_config, {name: tuple(leaf.shape) for name, leaf in leaves(True)}, path),
            stored.get("vq_config") or stored,
            path.parent / CONFIG_NAME,
        ),
        files=parts.files(prefix),
        leaves=leaves,
        has_decoder=has_decoder,
    )
    return opened.under(options)


def _config(shapes: Mapping[str, tuple[int, ...]], path: Path, stored: Mapping[str, Any]) -> VQGANConfig:
    resolution = stored.get("resolution", RESOLUTION)
    if not isinstance(resolution, int):
        raise ConfigError(f"resolution {resolution!r} is no whole number")
    return geometry(shapes, resolution, path, pixel_range=(-1.0, 1.0), preprocessing=FORMAT)

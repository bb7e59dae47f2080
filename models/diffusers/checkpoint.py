"""Open the folder of a diffusers `VQModel`, as aMUSEd, Meissonic and diffusers' own example write it: taming's network.

`config.json` says all of the network, but neither the range of its pixels nor the size of its images: `sample_size`
changes nothing there and is often left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.diffusers.names import laid_out, ours
from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import TokenizerOptions
from models.vqgan.checkpoint import VQGANCheckpoint
from models.vqgan.config import GROUPS, LevelShape, VQGANConfig
from models.weights.checks import names_in
from models.weights.native import CONFIG_NAME, configured, folder_name, json_beside
from models.weights.parts import INDEX, open_parts

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "diffusers"
CLASS = "VQModel"  # `_class_name` in config.json
FOLDERS = ("vqvae", "vqmodel", "vqmodel_ema", "movq", "vqgan")  # of a pipeline, or of what diffusers' example trains
STEM = "diffusion_pytorch_model"
WEIGHTS = tuple(
    f"{STEM}.{ending}"
    for ending in ("safetensors", f"safetensors{INDEX}", "bin", f"bin{INDEX}", "fp16.safetensors", "fp16.bin")
)
DEFAULTS: Mapping[str, Any] = {  # of diffusers, for what a config.json leaves out
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 3,
    "num_vq_embeddings": 256,
    "norm_num_groups": GROUPS,
    "vq_embed_dim": None,
    "norm_type": "group",
    "mid_block_add_attention": True,
}
BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # whether attention follows each block
BLOCKS_UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
SUPPORTED = {"act_fn": "silu", "norm_num_groups": GROUPS, "norm_type": "group"}


def find(path: Path) -> Path | None:
    """See `models/image_tokenizer.py`. Raises `CheckpointError` if a folder holds several."""
    if path.is_file():
        known = path.name in WEIGHTS or path.name == CONFIG_NAME or path.name.startswith(STEM)
        return path.parent if known and _is_vq_model(path.parent) else None
    if _is_vq_model(path):
        return path
    found = [path / name for name in FOLDERS if _is_vq_model(path / name)]
    if len(found) > 1:
        raise CheckpointError(f"{path}: holds several tokenizers ({', '.join(f.name for f in found)}); name the folder")
    return found[0] if found else None


def _is_vq_model(folder: Path) -> bool:
    return json_beside(folder).get("_class_name") == CLASS


def open_checkpoint(path: Path, options: TokenizerOptions) -> VQGANCheckpoint:
    """What `find` found.

    Raises `ConfigError` unless `options` give the range of pixels and the image size, and for a network that is not
    ours; `CheckpointError` if there are no weights.
    """
    config = configured(_config, {**DEFAULTS, **json_beside(path)}, path / CONFIG_NAME)
    options.check_one_set(path)
    _ask(path, options)
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{path}: no weights beside {CONFIG_NAME}; expected {WEIGHTS[0]}; found {names_in(path)}")
    parts = open_parts(weights)
    levels = len(config.levels_up)

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for name, leaf in parts.read():
            yield (renamed := ours(name, levels)), laid_out(renamed, leaf)

    opened = VQGANCheckpoint(
        path=path,
        format=FORMAT,
        name=folder_name(path.resolve().parent if path.name in FOLDERS else path),
        config=config,
        files=parts.files(),
        leaves=leaves,
        choices={"pixel_range_given": True},
    )
    return opened.under(options)


def _ask(path: Path, options: TokenizerOptions) -> None:
    wanted = []
    if options.pixel_range is None:
        wanted.append(
            "the range of its pixels: give pixel_range (0,1 for aMUSEd, Meissonic and what diffusers' example trains; "
            "-1,1 where its pipeline normalises images)"
        )
    if options.image_size is None:
        wanted.append("how large its images are: give image_size (256, 512 and 1024 are in use)")
    if wanted:
        raise ConfigError(f"{path}: a {CLASS} of diffusers does not say {'; nor '.join(wanted)}")


def _config(stored: Mapping[str, Any]) -> VQGANConfig:
    for name, value in SUPPORTED.items():
        if stored[name] != value:
            hint = " (a MoVQ, whose decoder norms read the codes)" if stored[name] == "spatial" else ""
            raise ConfigError(f"{name} {stored[name]!r}{hint} is not supported; expected {value}")
    widths, blocks = _listed(stored, "block_out_channels", int), stored["layers_per_block"]
    if type(blocks) is not int:
        raise ConfigError(f"layers_per_block {blocks!r} is no whole number")
    down = _attention(stored, "down_block_types", BLOCKS, len(widths))
    up = _attention(stored, "up_block_types", BLOCKS_UP, len(widths))[::-1]  # coarsest first
    width = stored["vq_embed_dim"]
    return VQGANConfig(
        ch=widths[0],
        encoder_levels=tuple(LevelShape(*level) for level in zip(widths, [blocks] * len(widths), down, strict=True)),
        decoder_levels=tuple(LevelShape(*level) for level in zip(widths, [blocks + 1] * len(widths), up, strict=True)),
        middle_attention=bool(stored["mid_block_add_attention"]),
        resolution=16 * 2 ** (len(widths) - 1),  # until `under` is told
        z_channels=stored["latent_channels"],
        embed_dim=stored["latent_channels"] if width is None else width,
        n_embed=stored["num_vq_embeddings"],
        in_channels=stored["in_channels"],
        out_ch=stored["out_channels"],
    )


def _attention(stored: Mapping[str, Any], name: str, known: Mapping[str, bool], levels: int) -> list[bool]:
    kinds = _listed(stored, name, str)
    strange = [kind for kind in kinds if kind not in known]
    if strange:
        raise ConfigError(f"{name}: {strange[0]} is not supported; expected {' or '.join(known)}")
    if len(kinds) != levels:
        raise ConfigError(f"{name} has {len(kinds)} levels, block_out_channels has {levels}")
    return [known[kind] for kind in kinds]


def _listed(stored: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    values = stored[name]
    if not isinstance(values, list) or not values or any(type(value) is not kind for value in values):
        raise ConfigError(f"{name} must be a list, not {values!r}")
    return values

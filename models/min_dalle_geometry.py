"""The geometry of min-dalle's detokenizer, which comes without a configuration: read off the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from models.errors import CheckpointError
from models.vqgan import ConfigError, VQGANConfig

GRID = 16  # min-dalle decodes 16 x 16 codes; no weight says so


def infer_geometry(shapes: Mapping[str, tuple[int, ...]], path: Path) -> VQGANConfig:
    """The configuration of a decoder whose weights (under our names) have these shapes; pixels are in [0, 1].

    Raises `CheckpointError` naming `path` where they are not those of a VQGAN decoder.
    """
    try:
        levels = 1 + max(int(found[1]) for name in shapes if (found := re.match(r"decoder\.up\.(\d+)\.", name)))
        ch = shapes["decoder.conv_out.weight"][1]
        widths = [shapes[f"decoder.up.{i}.block.0.conv1.weight"][0] for i in range(levels)]
        blocks = sum(bool(re.fullmatch(r"decoder\.up\.0\.block\.\d+\.conv1\.weight", name)) for name in shapes)
        z_channels, embed_dim = shapes["post_quant_conv.weight"][:2]
        n_embed = shapes["quantize.embedding.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: these are not the weights of min-dalle's detokenizer ({error})") from error
    resolution = GRID * 2 ** (levels - 1)
    attention = tuple(resolution // 2**i for i in range(levels) if f"decoder.up.{i}.attn.0.q.weight" in shapes)
    try:
        return VQGANConfig(
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=blocks - 1,
            attn_resolutions=attention,
            resolution=resolution,
            z_channels=z_channels,
            embed_dim=embed_dim,
            n_embed=n_embed,
            pixel_range=(0.0, 1.0),
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error

"""The geometry of a network like taming's, read from the shapes of its weights under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import CheckpointError
from models.vqgan.config import LevelShape, VQGANConfig

Shapes = Mapping[str, tuple[int, ...]]


def geometry(shapes: Shapes, resolution: int | None, path: Path, **values: Any) -> VQGANConfig:
    """The configuration for images of `resolution` pixels; `values` are what no shape says.

    Without an encoder or a decoder, the other half says it all. Without a `resolution` that of a grid of 16 codes a
    side is taken, so that the rest can be asked. Raises `CheckpointError` that names `path` if these are not the
    weights of such a network.
    """
    try:
        down, up = levels(shapes, "encoder.down"), levels(shapes, "decoder.up")
        half = "encoder" if down else "decoder"
        widest = shapes["encoder.conv_out.weight" if down else "decoder.conv_in.weight"]
        z_channels = widest[0 if down else 1]
        ch = shapes["encoder.conv_in.weight"][0] if down else shapes["decoder.conv_out.weight"][1]
        if "n_embed" not in values:  # as with codes that are signs
            values["n_embed"], values["embed_dim"] = shapes["quantize.embedding.weight"]
        if min(ch, z_channels) < 1:
            raise ValueError(f"weights without a channel, {ch} and {z_channels}")
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: these are not the weights of a VQGAN ({error})") from error
    finest = down or up
    size = resolution or 16 * 2 ** (len(finest) - 1)
    built: dict[str, Any] = {"ch": ch, "z_channels": z_channels}
    built |= {"middle_attention": f"{half}.mid.attn_1.q.weight" in shapes, "resolution": size}
    config = {**built, **values}
    if _is_regular(down, up, ch):
        attention = tuple(size // 2**i for i, level in enumerate(finest) if level.attention)
        return VQGANConfig(
            ch_mult=tuple(level.width // ch for level in finest),
            num_res_blocks=finest[0].blocks - (0 if down else 1),
            attn_resolutions=attention,
            **config,
        )
    return VQGANConfig(encoder_levels=tuple(down), decoder_levels=tuple(up), **config)


def levels(shapes: Shapes, where: str) -> list[LevelShape]:
    """The levels below "encoder.down" or "decoder.up", finest first as their names are; none if there is no half."""
    found = [re.match(rf"{where}\.(\d+)\.block\.0\.", name) for name in shapes]
    numbers = sorted({int(match[1]) for match in found if match})
    result = []
    for number in numbers:
        block = re.compile(rf"{where}\.{number}\.block\.\d+\.conv1\.weight")
        blocks = sum(1 for name in shapes if block.fullmatch(name))
        width = shapes[f"{where}.{number}.block.0.conv1.weight"][0]
        result.append(LevelShape(width, blocks, f"{where}.{number}.attn.0.q.weight" in shapes))
    return result


def _is_regular(down: Sequence[LevelShape], up: Sequence[LevelShape], ch: int) -> bool:
    """Whether multiples of `ch`, one number of blocks, and one more in the decoder, say it all."""
    finest = down or up
    same = len({level.blocks for level in finest}) == 1 and not any(level.width % ch for level in finest)
    return same and (not (down and up) or [level._replace(blocks=level.blocks + 1) for level in down] == list(up))

"""The geometry of min-dalle's models, which come without a configuration: read off the shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from models.bart.network import DalleBartConfig
from models.errors import CheckpointError, ConfigError
from models.vqgan.config import VQGANConfig

GRID = 16  # min-dalle decodes 16 x 16 codes; no weight says so
HEADS = {1024: 16, 2048: 32}  # of attention in mini and mega, by their width; no weight says so

Shapes = Mapping[str, tuple[int, ...]]


def infer_geometry(shapes: Shapes, path: Path) -> VQGANConfig:
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


def infer_bart_geometry(shapes: Shapes, path: Path, *, heads: int | None, force_ln_scale: bool) -> DalleBartConfig:
    """The configuration of a BART whose weights (under our names) have these shapes; prompts are normalised.

    Pictures begin with the id of the last row. `heads` is what the width implies (`HEADS`) where it is None. Raises
    `CheckpointError` naming `path` where the shapes are not those of min-dalle's encoder and decoder.
    """
    try:
        encoder_vocab_size, d_model = shapes["encoder.embed_tokens.weight"]
        output_size = shapes["decoder.lm_head.weight"][0]  # which the encoder lacks: the halves are not swapped
        max_text_length = shapes["encoder.embed_positions.weight"][0]
        image_length = shapes["decoder.embed_positions.weight"][0]
        ffn = {half: shapes[f"{half}.layers.0.glu.fc0.weight"][0] for half in ("encoder", "decoder")}
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: these are not the weights of min-dalle's BART ({error})") from error
    heads = heads or HEADS.get(d_model)
    if heads is None:
        known = " and ".join(f"{width} ({count} heads)" for width, count in HEADS.items())
        raise CheckpointError(
            f"{path}: the weights do not say how many attention heads a width of {d_model} has; known are {known}. "
            "Convert the dalle-mini folder that they were made from instead, whose config.json says it"
        )
    try:
        return DalleBartConfig(
            encoder_vocab_size=encoder_vocab_size,
            image_vocab_size=output_size - 1,
            image_length=image_length,
            max_text_length=max_text_length,
            d_model=d_model,
            encoder_layers=_layers(shapes, "encoder"),
            encoder_ffn_dim=ffn["encoder"],
            encoder_attention_heads=heads,
            decoder_layers=_layers(shapes, "decoder"),
            decoder_ffn_dim=ffn["decoder"],
            decoder_attention_heads=heads,
            decoder_start_token_id=output_size - 1,
            normalize_text=True,
            force_ln_scale=force_ln_scale,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _layers(shapes: Shapes, half: str) -> int:
    return 1 + max(int(found[1]) for name in shapes if (found := re.match(rf"{half}\.layers\.(\d+)\.", name)))

"""The networks of the families at the size of what the public has, as the shapes of its weights tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.support import machine
from models.vqgan.checkpoint import open_checkpoint
from models.vqgan.config import EMU3, HIGH_SIGNS, MAGVIT2, MASKGIT, SIGNS, LevelShape, VQGANConfig

EMBEDDED = open_checkpoint(machine.ROOT / "models" / "emoji").config
F16 = VQGANConfig()  # 16,384 codes, 256x256
SIGNED = (-1.0, 1.0)
WIDTHS = (128, 128, 256, 256, 512)
EMU3_WIDTHS = (256, 512, 512, 1024)


def _levels(blocks: tuple[int, ...], widths: tuple[int, ...] = WIDTHS) -> tuple[LevelShape, ...]:
    return tuple(LevelShape(width, number, False) for width, number in zip(widths, blocks, strict=True))


def _attended(blocks: tuple[int, ...], widths: tuple[int, ...]) -> tuple[LevelShape, ...]:
    """With attention in the last level only."""
    levels = _levels(blocks, widths)
    return (*levels[:-1], levels[-1]._replace(attention=True))


FAMILIES: Mapping[str, VQGANConfig] = {
    "vqgan": F16,
    "llamagen": replace(F16, embed_dim=8, quantizer="cosine", pixel_range=SIGNED, preprocessing="llamagen"),
    "chameleon": replace(
        F16, attn_resolutions=(), resolution=512, n_embed=8192, pixel_range=SIGNED, preprocessing="chameleon"
    ),
    "diffusers": replace(  # aMUSEd's
        F16,
        ch_mult=(1, 2, 2, 4, 6),
        attn_resolutions=(),
        z_channels=64,
        embed_dim=64,
        n_embed=8192,
        middle_attention=False,
    ),
    "showo": replace(
        F16,
        z_channels=13,
        embed_dim=13,
        n_embed=1 << 13,
        quantizer=HIGH_SIGNS,
        pixel_range=SIGNED,
        preprocessing="showo",
        encoder_levels=_levels((4, 3, 4, 3, 4), (128, 256, 256, 512, 512)),
        decoder_levels=_levels((4, 4, 3, 4, 3), (128, 128, 256, 256, 512)),
    ),
    "ibq": replace(F16, num_res_blocks=4, quantizer="dot", pixel_range=SIGNED, preprocessing="ibq"),
    "lfq": replace(
        F16,
        attn_resolutions=(),
        z_channels=18,
        embed_dim=18,
        n_embed=1 << 18,
        quantizer=SIGNS,
        pixel_range=SIGNED,
        preprocessing="ibq",
        middle_attention=False,
        network=MAGVIT2,
        encoder_levels=_levels((4,) * 5),
        decoder_levels=_levels((4,) * 5),
    ),
    "maskgit": replace(
        F16,
        attn_resolutions=(),
        n_embed=1024,
        preprocessing="llamagen",
        middle_attention=False,
        network=MASKGIT,
        encoder_levels=_levels((2,) * 5),
        decoder_levels=_levels((2,) * 5),
    ),
    "emu3": replace(
        F16,
        ch=256,
        attn_resolutions=(),
        resolution=512,
        z_channels=4,
        embed_dim=4,
        n_embed=32_768,
        pixel_range=SIGNED,
        frames=4,
        network=EMU3,
        encoder_levels=_attended((2,) * 4, EMU3_WIDTHS),
        decoder_levels=_attended((3,) * 4, EMU3_WIDTHS),
    ),
    "emoji": EMBEDDED,
}


def tiny(config: VQGANConfig) -> VQGANConfig:
    """A network of the same kind whose figures mean nothing."""
    values: dict[str, object] = {"ch": 32, "resolution": 32}
    if config.encoder_levels:
        values |= {"encoder_levels": _levels((1, 1), (32, 32)), "decoder_levels": _levels((1, 1), (32, 32))}
    else:
        attention = (16,) if config.attn_resolutions else ()
        values |= {"ch_mult": (1, 1), "num_res_blocks": 1, "attn_resolutions": attention}
    if config.quantizer not in (SIGNS, HIGH_SIGNS):
        values |= {"z_channels": 8, "embed_dim": 8, "n_embed": 64}
    return replace(config, **values)  # type: ignore[arg-type]

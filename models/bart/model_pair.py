"""Whether a DALL·E BART and a VQGAN can work together; asked before anything is generated."""

from __future__ import annotations

from models.bart.network import DalleBartConfig
from models.errors import ConfigError
from models.vqgan.config import VQGANConfig

MOST_SPARE_IDS = 64


def check_pair(bart: DalleBartConfig, vqgan: VQGANConfig) -> None:
    """Raise `ConfigError` where the codes that the BART draws cannot be those of the VQGAN.

    A picture must have as many codes for both. The BART must know every code, since any may stand in its training data,
    and may have a few ids more: special ones, or rows that round a table up (dalle-mini's own configurations have 7 and
    31 over 16,384). More than `MOST_SPARE_IDS`, or than a sixteenth of a smaller codebook, means another VQGAN. Spare
    ids are never drawn. Equal sizes prove nothing: whoever pairs two models must know that they belong together.
    """
    if bart.image_length != vqgan.codes_per_image:
        raise ConfigError(
            f"the BART draws {bart.image_length} codes a picture and the VQGAN paints {vqgan.grid}x{vqgan.grid} = "
            f"{vqgan.codes_per_image}; name the VQGAN that the BART was trained with"
        )
    spare = bart.image_vocab_size - vqgan.n_embed
    if not 0 <= spare <= min(MOST_SPARE_IDS, vqgan.n_embed // 16):
        raise ConfigError(
            f"the BART knows {bart.image_vocab_size} codes and the VQGAN's codebook has {vqgan.n_embed}, so it was "
            "trained with another one; name the VQGAN that the BART was trained with"
        )

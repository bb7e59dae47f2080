"""The names of LlamaGen's and Janus' weights; ours are taming's, whose finest level of the decoder is `up.0`."""

from __future__ import annotations

import re

from models.vqgan.names import mirrored

MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}
COUNTER = "quantize.codebook_used"  # of training


def ours(name: str, levels: int) -> str:
    """Our name for one of theirs, or of transformers' `JanusVQVAE`: both number the decoder from its coarsest level."""
    name = re.sub(r"^encoder\.conv_blocks\.", "encoder.down.", name)
    name = re.sub(r"^decoder\.conv_blocks\.", "decoder.up.", name)
    name = re.sub(r"^(encoder\.down|decoder\.up)\.(\d+)\.res\.", r"\1.\2.block.", name)
    return re.sub(r"\.mid\.([012])\.", lambda match: f".mid.{MIDDLE[match[1]]}.", mirrored(name, levels))

"""The names of the weights of diffusers' `VQModel`; ours are taming's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from models.vqgan.names import mirrored

if TYPE_CHECKING:
    from torch import Tensor

MIDDLE = {"resnets.0": "block_1", "attentions.0": "attn_1", "resnets.1": "block_2"}
# Of attention; the second of each is how diffusers called it before 0.17.
ATTENTION = {
    "group_norm": "norm",
    **dict.fromkeys(("to_q", "query"), "q"),
    **dict.fromkeys(("to_k", "key"), "k"),
    **dict.fromkeys(("to_v", "value"), "v"),
    **dict.fromkeys(("to_out.0", "proj_attn"), "proj_out"),
}
PARTS = {
    "down_blocks.": "down.",
    "up_blocks.": "up.",
    "downsamplers.0.": "downsample.",
    "upsamplers.0.": "upsample.",
    "conv_norm_out.": "norm_out.",
    "conv_shortcut.": "nin_shortcut.",
}


def ours(name: str, levels: int) -> str:
    """Our name for one of theirs, which number the `levels` of the decoder from the coarsest."""
    name = re.sub(r"\.mid_block\.(resnets\.[01]|attentions\.0)\.", lambda match: f".mid.{MIDDLE[match[1]]}.", name)
    name = re.sub(r"(attn_1|attentions\.\d+)\.([a-z_]+(?:\.0)?)\.(?=weight|bias)", _of_attention, name)
    for theirs, part in PARTS.items():
        name = name.replace(theirs, part)
    name = re.sub(r"\.(\d+)\.resnets\.", r".\1.block.", name)
    return mirrored(re.sub(r"\.(\d+)\.attentions\.", r".\1.attn.", name), levels)


def _of_attention(match: re.Match[str]) -> str:
    return f"{match[1]}.{ATTENTION.get(match[2], match[2])}."


def laid_out(name: str, leaf: Tensor) -> Tensor:
    """A weight of attention [C, C] as the 1x1 convolution that ours is; others as they are."""
    return leaf[:, :, None, None] if leaf.ndim == 2 and ".attn" in name else leaf

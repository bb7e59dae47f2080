"""The names of the weights of Emu3's tokenizer in its own repository; ours are those of transformers' class."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = ".num_batches_tracked"  # of training
RENAMED = (
    (r"^encoder\.down\.", "encoder.down_block.down."),
    (r"^decoder\.up\.", "decoder.up_block.up."),
    (r"^(encoder|decoder)\.mid\.", r"\1.middle_block."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"\.attn_1\.norm\.", ".attn_norm."),
    (r"(\.attn\.\d+|\.attn_1)\.([qkv])\.", r"\1.\2_proj."),
    (r"(\.attn\.\d+|\.attn_1)\.proj_out\.", r"\1.out_proj."),
)


def ours(name: str, leaf: Tensor) -> tuple[str, Tensor]:
    """Our name and layout for theirs, or for transformers', which are ours: 1x1 convolutions there are products."""
    for theirs, replacement in RENAMED:
        name = re.sub(theirs, replacement, name)
    return name, leaf.flatten(1) if "_proj.weight" in name and leaf.ndim == 4 else leaf

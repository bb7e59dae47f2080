"""The names and layouts of VQGAN weights in the checkpoints of others; our names are taming's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from models.weights.flax import LEAVES

if TYPE_CHECKING:
    from torch import Tensor


def from_flax(name: str, leaf: Tensor) -> tuple[str, Tensor]:
    """("encoder/down_0/block_1/conv1/kernel", HWIO) -> ("encoder.down.0.block.1.conv1.weight", OIHW)."""
    parts = name.removeprefix("params/").split("/")
    parts[-1] = LEAVES.get(parts[-1], parts[-1])
    ours = ".".join(parts)
    if ".mid." not in ours:  # there the number is part of the name: block_1, attn_1, block_2
        ours = re.sub(r"\b(down|up|block|attn)_(\d+)\b", r"\1.\2", ours)
    if leaf.ndim == 4:
        leaf = leaf.permute(3, 2, 0, 1).contiguous()
    return ours, leaf


def to_flax(name: str, leaf: Tensor) -> tuple[str, Tensor]:
    """The inverse of `from_flax`."""
    theirs = re.sub(r"\b(down|up|block|attn)\.(\d+)\b", r"\1_\2", name).replace(".", "/")
    head, _, last = theirs.rpartition("/")
    if last == "weight":
        if leaf.ndim == 4:
            leaf = leaf.permute(2, 3, 1, 0).contiguous()
            last = "kernel"
        else:
            last = "embedding" if head.endswith("embedding") else "scale"
    return f"{head}/{last}", leaf


def from_min_dalle(name: str) -> str:
    """Ours for a name in min-dalle's detokenizer."""
    return "quantize.embedding.weight" if name == "embedding.weight" else name


def levels_in(names: Iterable[str]) -> int:
    """How many levels a decoder has, under our names or LlamaGen's."""
    found = (re.match(r"decoder\.(?:conv_blocks|up)\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def mirrored(name: str, levels: int) -> str:
    """The name of a weight with the levels of the decoder numbered from the other end."""
    return re.sub(r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up.{levels - 1 - int(match[1])}.", name)

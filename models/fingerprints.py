"""What identifies weights: stored with tokens, compared before they are decoded, part of a run's fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def codebook_id(codebook: Tensor) -> str:
    """SHA-256 (hex) of a codebook [n_embed, embed_dim] as little-endian float16 in C order.

    In float16, so that a checkpoint, its half-precision copy and its decoder alone have one id.
    """
    half = codebook.detach().to("cpu", torch.float16).contiguous().numpy().astype("<f2", copy=False)
    return hashlib.sha256(half.reshape(-1).data).hexdigest()


def weights_id(leaves: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over all weights under our names, whatever their order, file format or width.

    Values are taken as float32, which holds float16 and bfloat16 exactly; one leaf is in memory at a time.
    """
    lines = []
    for name, leaf in leaves:
        values = leaf.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest = hashlib.sha256(values.reshape(-1).data).hexdigest()
        lines.append(f"{name} {list(leaf.shape)} {digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

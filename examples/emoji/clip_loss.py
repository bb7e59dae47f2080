"""The contrastive loss of the CLIP (Radford et al. 2021), with spoilt images as further negatives of the captions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STILL_RIGHT = 0.75  # of the codes: above it a spoilt image still has its caption as the best of the batch
AS_GOOD = 0.97  # above it a spoilt image is no negative of its own caption


def contrastive_loss(
    logits: Tensor, thing: Tensor, background: Tensor, names_background: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Captions against images and back; returns the two means.

    `logits` [N, N + M]: N captions against their N images, then against M spoilt versions of the first M images.
    `thing`, `background` int64 [N] and `names_background` bool [N] say what the captions ask for, `kept` [M] how much
    is left of the spoilt ones. Images that fit a caption as well as its own are left out of its sum.
    """
    count, spoilt = len(thing), len(kept)
    same = (thing[:, None] == thing) & ((background[:, None] == background) | ~names_background[:, None])
    own = torch.eye(count, dtype=torch.bool)
    ignored = torch.cat([same & ~own, same[:, :spoilt] & (kept >= AS_GOOD)], dim=1)
    to_images = F.cross_entropy(logits.masked_fill(ignored, -torch.inf), torch.arange(count))

    usable = torch.cat([torch.ones(count, dtype=torch.bool), kept >= STILL_RIGHT])
    owner = torch.cat([torch.arange(count), torch.arange(spoilt)])[usable]
    others = (same & ~own)[:, owner]
    to_captions = F.cross_entropy(logits[:, usable].masked_fill(others, -torch.inf).T, owner)
    return to_images, to_captions

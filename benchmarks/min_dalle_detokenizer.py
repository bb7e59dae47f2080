"""The peer of decoding: min-dalle's own detokenizer with our weights, float32 as it ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.network_parts import DECODING, count_weights
from benchmarks.peer_process import Peer
from models.vqgan.checkpoint import load_vqgan


def load_detokenizer(folder: Path, device: torch.device) -> Peer:
    """int64 codes [N, 256] -> uint8 [S x 256, S x 256, 3], N = S x S pictures as one. Compared is one picture, float32
    pixels from 0 to 1.

    Its geometry is fixed. Raises `RuntimeError` where a weight of either network is left over.
    """
    from min_dalle.models import VQGanDetokenizer  # here: importing it turns gradients off for a process

    weights = {
        name.removeprefix("quantize."): value
        for name, value in load_vqgan(folder).state_dict().items()
        if name.startswith(DECODING)
    }
    network = VQGanDetokenizer()
    network.load_state_dict(weights)
    network.to(device).eval()

    def levels(codes: np.ndarray) -> Tensor:
        return network.forward(False, torch.from_numpy(codes).to(device))

    def decode(codes: np.ndarray) -> np.ndarray:
        return levels(codes).to(torch.uint8).cpu().numpy()

    return Peer(decode, lambda codes: levels(codes)[None].cpu().numpy() / 255, count_weights(network, ("",)))

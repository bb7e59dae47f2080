"""A peer of encoding or decoding: another implementation of our VQGAN, with our weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.peers.process import PeerProcess
from benchmarks.support.rounds import in_batches

# The parts of a VQGAN that encode and that decode; their names are the same in taming and in diffusers.
ENCODING = ("encoder.", "quant_conv.", "quantize.")
DECODING = ("quantize.", "post_quant_conv.", "decoder.")


@dataclass(frozen=True)
class CodecPeer:
    """`work` is what the peer's users do with a batch of `items`, until the result is on the host; `compared` is what
    is compared with ours. `weights` counts the numbers in the parts that do the work."""

    items: np.ndarray
    work: Callable[[np.ndarray], np.ndarray]
    compared: Callable[[np.ndarray], np.ndarray]
    weights: int

    def rate(self, rows: int, batch: int) -> float:
        """Images/s over `rows` items in whole batches."""
        return in_batches(self.work, self.items, batch)(rows)

    def exact(self, rows: int) -> np.ndarray:
        """What is compared, for the first items, one at a time; without TF32, torch's default in convolutions."""
        torch.backends.cudnn.allow_tf32 = False  # of a GPU
        return np.concatenate([self.compared(self.items[i : i + 1]) for i in range(rows)])


def rate_at(peer: PeerProcess[CodecPeer], batch: int) -> Callable[[int], float]:
    """`Contender.run` for a peer in its process."""
    return lambda rows: peer.run(CodecPeer.rate, rows, batch)


def count_weights(network: nn.Module, parts: tuple[str, ...]) -> int:
    """Numbers in the parameters whose names begin like one of `parts`."""
    return sum(weight.numel() for name, weight in network.named_parameters() if name.startswith(parts))

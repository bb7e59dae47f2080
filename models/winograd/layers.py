"""Which convolutions of a network are computed by Winograd's algorithm, where that was measured to be faster."""

from __future__ import annotations

import importlib
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ConfigError
from models.threads import Threads
from models.winograd.algorithm import transformed

CONVOLUTIONS = ("auto", "direct", "winograd")
LEAST_FLOPS = 1e10  # of a network for an image: below, compiling takes longer than it saves
MOST_WEIGHTS = 256 * 256  # inputs x outputs: 9.4 MB transformed; more leave the caches, and are few in these networks
LEAST_PIXELS = 32 * 32
CHANNELS = 32  # a multiple of these


def suits(device: str, dtype: str, flops: float) -> bool:
    """Whether "auto" takes it: on processors with AVX2 and no wider vectors, with numba, for networks that are not
    tiny. `dtype` may be "auto"."""
    return (
        device == "cpu"
        and dtype in ("auto", "float32")
        and flops >= LEAST_FLOPS
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and _obstacle() is None
    )


def _obstacle() -> str | None:
    try:
        importlib.import_module("numba")
    except (ImportError, OSError) as error:  # not there, or not made for this numpy or this system
        return str(error)
    return None


def use_winograd(network: nn.Module, threads: int, helpers: Threads | None = None) -> int:
    """Put `WinogradConv2d` in the place of every convolution that it can do; returns how many.

    Raises `ConfigError` without numba.
    """
    problem = _obstacle()
    if problem is not None:
        raise ConfigError(f"this job's convolutions are computed by numba, which cannot be used here ({problem}): "
                          "pip install numba")  # fmt: skip
    helpers = helpers or Threads()
    replaced = 0
    for name, part in network.named_children():
        if isinstance(part, nn.Conv2d) and _fits(part):
            setattr(network, name, WinogradConv2d(part, threads, helpers))
            replaced += 1
        else:
            replaced += use_winograd(part, threads, helpers)
    return replaced


def _fits(conv: nn.Conv2d) -> bool:
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels % CHANNELS == conv.out_channels % CHANNELS == 0
        and conv.in_channels * conv.out_channels <= MOST_WEIGHTS
        and conv.weight.dtype == torch.float32
    )


class WinogradConv2d(nn.Conv2d):
    """A convolution with the weights of `conv`. Transformed ones are made when they are first needed, so that a job
    that only encodes holds none of the decoder. Small images, and what is to be differentiated, go the direct way."""

    def __init__(self, conv: nn.Conv2d, threads: int, helpers: Threads | None = None) -> None:
        super().__init__(1, 1, 3, padding=1, bias=False)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.weight, self.bias = conv.weight, conv.bias
        self.threads, self._helpers = threads, helpers or Threads()
        self._held: tuple[np.ndarray, np.ndarray] | None = None

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height * width < LEAST_PIXELS or torch.is_grad_enabled() or x.dtype != torch.float32:
            return super().forward(x)
        from models.winograd.compiled import convolve

        weights, bias = self._transformed()
        images = x.permute(0, 2, 3, 1).contiguous().numpy()
        made = torch.empty(len(x), height, width, self.out_channels)
        for image, place in zip(images, cast("Any", made.numpy()), strict=True):
            convolve(image, weights, bias, place, self._helpers, self.threads)
        return made.permute(0, 3, 1, 2)

    def _transformed(self) -> tuple[np.ndarray, np.ndarray]:
        if self._held is None:
            bias = torch.zeros(self.out_channels) if self.bias is None else self.bias
            self._held = transformed(self.weight.detach()).flatten().numpy(), bias.detach().contiguous().numpy()
        return self._held

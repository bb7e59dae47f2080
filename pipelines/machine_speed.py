"""How fast a machine computes: measured here in a tenth of a second, or assumed of one that is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

SIDE, CHANNELS = 32, 128  # of the convolution: 0.3 GFLOP
COPIED = 64 << 20  # bytes, more than most caches hold
LEAST, MOST_SECONDS = 3, 0.05  # times that each is done, and how long it goes on
HALF = ("bfloat16", "float16")

# A core with AVX-512 reaches 100 to 200 GFLOP/s in float32, one with AVX2 60 to 100.
ASSUMED_CORE = 100e9
ASSUMED_MEMORY = 15e9
# The f16 networks on a GPU: an H200 reaches 207 TFLOP/s of its 132 processors in bfloat16, a seventh of it in float32
# and a third in TF32; those of other generations are taken to be slower as their peaks are.
PER_PROCESSOR = {9: 1.5e12, 8: 0.75e12, 7: 0.37e12}
SMALL_AMPERE = 0.37e12  # 8.6 and 8.9
GPU_SHARE = {"float32": 1 / 7, "tf32": 1 / 3}
ASSUMED_GPU = 100e12
GPU_MEMORY = 1e12


@dataclass(frozen=True)
class Speed:
    """`flops`: operations a second of a core, or of a GPU, by dtype, in the 3x3 convolutions that tokenizers are made
    of. `memory`: bytes a second that all cores can read. `measured`: on this machine."""

    flops: Mapping[str, float]
    memory: float
    measured: bool = False


def assumed(kind: str, dtypes: tuple[str, ...], gpu: float = ASSUMED_GPU) -> Speed:
    """Of a machine elsewhere; `kind` is "cpu" or "cuda", `gpu` the speed of its GPU in the fastest dtype."""
    if kind == "cpu":
        return Speed(dict.fromkeys(dtypes, ASSUMED_CORE), ASSUMED_MEMORY)
    return Speed({dtype: gpu * GPU_SHARE.get(dtype, 1.0) for dtype in dtypes}, GPU_MEMORY)


def gpu_flops(capability: tuple[int, int], processors: int) -> float:
    """Operations a second of a GPU in its fastest dtype."""
    major, minor = capability
    return processors * (SMALL_AMPERE if major == 8 and minor else PER_PROCESSOR[min(max(major, 7), 9)])


def speed_here(device: str, dtypes: tuple[str, ...]) -> Speed:
    """Of this machine. A CPU is measured by the time that one thread is given, which other programs hardly move; of a
    GPU its processors are counted, since to measure it would take a part of its memory."""
    if device == "cpu":
        return Speed({dtype: _convolution(dtype) for dtype in dtypes}, _memory(), measured=True)
    import torch

    about = torch.cuda.get_device_properties(device)
    return assumed("cuda", dtypes, gpu_flops((about.major, about.minor), about.multi_processor_count))


@cache
def _convolution(dtype: str) -> float:
    import torch
    from torch.nn.functional import conv2d

    from models.devices import torch_dtype

    pixels = torch.randn(1, CHANNELS, SIDE, SIDE).to(torch_dtype(dtype))
    weights = torch.randn(CHANNELS, CHANNELS, 3, 3).to(torch_dtype(dtype))
    return 2 * 9 * CHANNELS**2 * SIDE**2 / _seconds(lambda: conv2d(pixels, weights, padding=1))


@cache
def _memory() -> float:
    """A copy reads and writes."""
    import torch

    values = torch.zeros(COPIED // 4)
    other = torch.zeros_like(values)
    return 2 * COPIED / _seconds(lambda: other.copy_(values))


def _seconds(work: Callable[[], object]) -> float:
    """The least that one thread took for it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            work()
            taken: list[float] = []
            while len(taken) < LEAST or sum(taken) < MOST_SECONDS:
                began = time.thread_time()
                work()
                taken.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return max(min(taken), 1e-9)

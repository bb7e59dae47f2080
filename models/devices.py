"""Where and how precisely a model computes: devices, dtypes, and what a device's memory holds.

Imports torch only to ask it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ConfigError
from models.processor import multiplies_bfloat16

if TYPE_CHECKING:
    import torch

# Without this, Intel's MKL, with which torch multiplies in float32, rounds by the address of its operands. That differs
# between threads, so on some processors a row would depend on its position in the batch. MKL reads this before its
# first product; a value that is already set is the user's choice.
os.environ.setdefault("MKL_CBWR", "AUTO")

DTYPES = ("float32", "tf32", "bfloat16", "float16")
SHORT_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # as other tools call them
FASTEST = "fastest"  # of those that this processor has arithmetic for
INT8 = "int8"  # of a DALL·E BART's decoder alone
ASSUMED_GPU_BYTES = 16 << 30  # of a GPU that nothing is known of
HUGE = 1 << 21  # bytes, of a large page
MADV_COLLAPSE = 25  # Linux 6.1


def resolve_device(device: str) -> str:
    """ "auto" | "cpu" | "cuda" | "cuda:1" -> "cpu" or a GPU that is there and that this torch has code for.

    Raises `ConfigError` otherwise.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise ConfigError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs")
    if kind == "cuda":
        _check_code(int(index or 0))
    return device


def _check_code(gpu: int) -> None:
    """Raise `ConfigError` for a GPU that torch would fail on at the first product, with "no kernel image".

    Builds for CUDA 13, such as torch 2.13 of PyPI, begin at compute capability 7.5: they run on no V100.
    """
    import torch

    capability, built = torch.cuda.get_device_capability(gpu), torch.cuda.get_arch_list()
    if built and torch.version.hip is None and not any(_runs(arch, capability) for arch in built):
        raise ConfigError(
            f"GPU {gpu} is a {torch.cuda.get_device_name(gpu)} of compute capability {'.'.join(map(str, capability))}, "
            f"and torch {torch.__version__} has code for {', '.join(built)} only: install a build of torch for an "
            "older CUDA, or give --device cpu"
        )


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether code for "sm_86" runs on a GPU, or for "compute_90", which the driver compiles for it."""
    kind, _, digits = arch.partition("_")
    major, minor = divmod(int(digits.rstrip("af")), 10)
    if kind == "compute":
        return (major, minor) <= capability
    return major == capability[0] and minor <= capability[1]


def gpu_multiplies_bfloat16(device: str) -> bool:
    """Whether a GPU of this machine has arithmetic for it; True for one that this process does not see.

    Those before compute capability 8.0 (T4, V100, P100, RTX 20) have none: torch says that they support it, but
    imitates products, slower than in float32, and cuDNN has no convolutions.
    """
    import torch

    index = int(device.partition(":")[2] or 0)
    return index >= torch.cuda.device_count() or torch.cuda.get_device_capability(index) >= (8, 0)


def resolve_dtype(dtype: str, device: str, *, gpu_bfloat16: bool | None = None) -> str:
    """ "auto" is bfloat16 on a GPU that multiplies it, else float32; "fastest" asks this CPU, and is float16 on other
    GPUs; the other names, also short ones, are checked.

    `gpu_bfloat16`: whether a GPU on another machine multiplies it; None asks the one of this machine, if it has one.
    Raises `ConfigError`.
    """
    dtype = SHORT_NAMES.get(dtype, dtype)
    if dtype in ("auto", FASTEST):
        if not device.startswith("cuda"):
            return "bfloat16" if dtype == FASTEST and multiplies_bfloat16() else "float32"
        if gpu_multiplies_bfloat16(device) if gpu_bfloat16 is None else gpu_bfloat16:
            return "bfloat16"
        return "float16" if dtype == FASTEST else "float32"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: expected auto, fastest, {', '.join(DTYPES)}")
    if dtype == "tf32" and not device.startswith("cuda"):
        raise ConfigError("dtype 'tf32' exists on NVIDIA GPUs only; use float32 or bfloat16")
    return dtype


def resolve_drawing_dtype(dtype: str, device: str, *, gpu_bfloat16: bool | None = None) -> str:
    """The dtype of a DALL·E BART: as `resolve_dtype` gives it, or "int8"."""
    return dtype if dtype == INT8 else resolve_dtype(dtype, device, gpu_bfloat16=gpu_bfloat16)


def painting_dtype(drawn: str, device: str) -> str:
    """The dtype of the networks of torch around a decoder that draws in the dtype `drawn`."""
    if drawn not in (INT8, "bfloat16"):
        return drawn
    return resolve_dtype("bfloat16" if device.startswith("cuda") else FASTEST, device)


def gpu_bytes(device: str = "cuda") -> int:
    """The memory of a GPU of this machine; `ASSUMED_GPU_BYTES` if this process sees none."""
    import torch

    if not torch.cuda.is_available():
        return ASSUMED_GPU_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory)


def torch_dtype(dtype: str) -> torch.dtype:
    """The type that weights are held in under one of `DTYPES`."""
    import torch

    held: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return held


def set_torch_state(device: torch.device, threads: int, *, products: bool = False, convolutions: bool = False) -> None:
    """Set what torch keeps per process or thread and not per model: threads, and what a GPU may compute in TF32."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions


def largest_batch(image_bytes: float, budget: float, most: int) -> int:
    """The largest power of two of images, up to `most`, that need no more than `budget` bytes; at least 1."""
    batch = 1
    while 2 * batch <= most and 2 * batch * image_bytes <= budget:
        batch *= 2
    return batch


def collapse_into_huge_pages() -> int:
    """Move the large arrays of this process into pages of 2 MiB; return the number of bytes moved, 0 if it cannot.

    With pages of 4 KiB a product of few rows waits for address translation (`benchmarks/products.py` says how long).
    """
    import ctypes

    maps = Path("/proc/self/maps")
    if not maps.exists():
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    moved = 0
    for line in maps.read_text().splitlines():
        span, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if not permissions.startswith("rw") or inode != "0" or (name and name[0] != "[heap]"):
            continue
        first, last = (int(address, 16) for address in span.split("-"))
        first, last = -(-first // HUGE) * HUGE, last // HUGE * HUGE
        if first < last and madvise(first, last - first, MADV_COLLAPSE) == 0:
            moved += last - first
    return moved

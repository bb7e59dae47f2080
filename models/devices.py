"""Where and how precisely a model computes: the meaning of --device, --dtype and the default --batch_size."""

from __future__ import annotations

import torch

from models.errors import ConfigError
from models.vqgan.config import VQGANConfig

DTYPES = {  # what the network's weights are held in
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
INT8 = "int8"  # of a DALL·E BART's decoder alone
CPU_BATCH_BYTES = 64 << 20  # of the widest activations in float32: more makes a CPU no faster
ASSUMED_GPU_BYTES = 16 << 30  # where the launcher cannot see the worker's GPU
MAX_BATCH = 256


def resolve_device(device: str) -> str:
    """ "auto" | "cpu" | "cuda" | "cuda:1" -> "cpu" or a GPU that is there. Raises `ConfigError` otherwise."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise ConfigError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """ "auto" is bfloat16 on a GPU and float32 on a CPU; others are checked. Raises `ConfigError`.

    `device` is not opened: the launcher of a job may have none.
    """
    if dtype == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: expected auto, {', '.join(DTYPES)}")
    if dtype == "tf32" and not device.startswith("cuda"):
        raise ConfigError("dtype 'tf32' exists on NVIDIA GPUs only; use float32 or bfloat16")
    return dtype


def resolve_drawing_dtype(dtype: str, device: str) -> str:
    """What a DALL·E BART draws in: as `resolve_dtype`, or "int8"."""
    return dtype if dtype == INT8 else resolve_dtype(dtype, device)


def gpu_bytes(device: str = "cuda") -> int:
    """The memory of a GPU, assumed where this process sees none."""
    known = torch.cuda.is_available()
    return int(torch.cuda.get_device_properties(device).total_memory) if known else ASSUMED_GPU_BYTES


def default_batch_size(device: str, config: VQGANConfig) -> int:
    """A power of two that the device's memory holds with room to spare, by the model's widest activations."""
    widest = max(config.ch * mult / 4**level for level, mult in enumerate(config.ch_mult))
    image_bytes = 4 * widest * config.resolution**2
    # On a GPU about eight such activations live at once, and half of the memory stays free.
    budget = gpu_bytes(device) / 16 if device.startswith("cuda") else CPU_BATCH_BYTES
    batch = 1
    while batch < MAX_BATCH and 2 * batch * image_bytes <= budget:
        batch *= 2
    return batch

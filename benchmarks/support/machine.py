"""The machine that figures are taken on: its processor, the measured matrix peak and memory bandwidth, the versions."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.devices import collapse_into_huge_pages

ROOT = Path(__file__).resolve().parents[2]
SIDES = (2048, 3072, 4096)  # of the square matrices whose product is timed
QUICK_SIDES = (256,)  # without a unit for bfloat16 a large product takes many minutes
FEATURES = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}


def describe(device: torch.device) -> str:
    """One line of Markdown: date, processor or GPU, versions, commit."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{torch.get_num_threads()} threads on {_processor()}"
    today = datetime.date.today().isoformat()
    return f"{today}, {hardware}, Python {platform.python_version()}, torch {torch.__version__}, commit {_commit()}"


def matrix_peak(
    device: torch.device,
    dtype: torch.dtype,
    sides: tuple[int, ...] = SIDES,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of the fastest square product of these sides, each run twice after a warm-up."""
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for attempt in range(3):
            start = clock()
            torch.matmul(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if attempt:
                best = max(best, 2 * side**3 / (clock() - start))
    return best


def memory_bandwidth(
    device: torch.device, size: int = 1 << 29, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes/s at which `size` bytes are read; the fastest of ten attempts."""
    values = torch.ones(size // 4, device=device)
    if device.type == "cpu":
        collapse_into_huge_pages()
    best = 0.0
    for _ in range(10):
        start = clock()
        values.sum()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, size / (clock() - start))
    return best


def _processor() -> str:
    """Model name and the instructions that matter here, on Linux; elsewhere what Python knows."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()]
    values = {name.strip(): value.strip() for name, _, value in lines}
    flags = values.get("flags", "").split()
    best = next((label for flag, label in FEATURES.items() if flag in flags), "")
    return f"{values.get('model name', platform.machine())} with {os.cpu_count()} cores" + (
        f" and {best}" if best else ""
    )


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"

"""The machine that is measured: its processor, versions, matrix peak and memory bandwidth."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from models import processor
from models.devices import collapse_into_huge_pages

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
SIDES = (2048, 3072, 4096)  # of the square matrices whose product is timed
QUICK_SIDES = (256,)  # without a unit for bfloat16 a large product takes many minutes
READ_BYTES = 1 << 29  # to measure the memory's bandwidth
UNITS = {"avx2": "AVX2", "fma": "FMA", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def describe(device: torch.device = CPU) -> str:
    """One line of Markdown: date, processor or GPU, versions, commit."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{torch.get_num_threads()} threads on {_processor()}"
    today = datetime.date.today().isoformat()
    return f"{today}, {hardware}, Python {platform.python_version()}, torch {torch.__version__}, commit {_commit()}"


def matrix_peak(device: torch.device, dtype: torch.dtype, quick: bool) -> float:
    """FLOP/s of the fastest square product of `SIDES`, each run twice after a warm-up."""
    best = 0.0
    for side in QUICK_SIDES if quick else SIDES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        _, *seconds = (_seconds(partial(torch.matmul, a, b), device) for _ in range(3))
        best = max(best, 2 * side**3 / min(seconds))
    return best


def memory_bandwidth(device: torch.device = CPU) -> float:
    """Bytes/s at which `READ_BYTES` are read; the fastest of ten attempts."""
    values = torch.ones(READ_BYTES // 4, device=device)
    if device.type == "cpu":
        collapse_into_huge_pages()
    return READ_BYTES / min(_seconds(values.sum, device) for _ in range(10))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time that `work` takes on `device`."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def units() -> str:
    """One line: the processor's units for arithmetic, and what the environment tells libraries to leave out."""
    flags = processor.flags()
    there = [label for flag, label in UNITS.items() if flag in flags]
    absent = [f"no {label}" for flag, label in UNITS.items() if flag not in flags]
    told = [f"{name}={os.environ[name]}" for name in SWITCHES if name in os.environ]
    parts = [", ".join(there), ", ".join(absent)] if flags else [f"unknown for {platform.machine()}"]
    parts += [f"torch uses {torch.backends.cpu.get_cpu_capability()}", *([f"told {' '.join(told)}"] if told else [])]
    return f"units: {'; '.join(part for part in parts if part)}"


def _processor() -> str:
    """Model name and best unit on Linux; elsewhere what Python knows."""
    values = processor.described()
    if not values:
        return platform.processor() or platform.machine()
    flags = processor.flags()
    found = [label for flag, label in UNITS.items() if flag in flags and flag != "fma"]
    return f"{values.get('model name', platform.machine())} with {os.cpu_count()} cores" + (
        f" and {found[-1]}" if found else ""
    )


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"

"""The first line of a run of tests names the processor's units, and `make test-plain` runs without them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.support import machine
from models import processor
from tests.support.paths import ROOT

CORE = "processor\t: {}\nmodel name\t: A\nflags\t\t: fpu sse2 {}\n\n"

USED = """
import torch
from models.bart.decoder import Dense
torch.set_num_threads(1)
print("torch:", torch.backends.cpu.get_cpu_capability())
Dense([torch.ones(64, 64)], rows=8, device=torch.device("cpu"), dtype=torch.float32)(torch.ones(8, 64))
print("bfloat16:", torch.ops.mkldnn._is_mkldnn_bf16_supported())
import numba, numpy as np
from models.bart.compiled import tiles
from models.bart.compiled.products import _dot_pair
product = numba.njit(lambda w, x: _dot_pair(w, 0, x, 0, len(w)))
product(np.ones(64, np.float32), np.ones(128, np.float32))
code = "".join(product.inspect_asm().values())
print("compiled:", [name for name in ("xmm", "ymm", "zmm") if name in code])
print("matrix unit:", tiles.usable())
"""


@pytest.mark.parametrize(
    ("flags", "told", "expected"),
    [
        ("avx2 fma", {}, "AVX2, FMA; no AVX-512, no AVX-512 BF16, no AMX; torch uses X"),
        ("", {}, "no AVX2, no FMA, no AVX-512, no AVX-512 BF16, no AMX; torch uses X"),
        (
            "avx2 fma avx512f avx512_bf16 amx_bf16",
            {"ONEDNN_MAX_CPU_ISA": "AVX2", "NUMBA_CPU_NAME": "generic"},
            "AVX2, FMA, AVX-512, AVX-512 BF16, AMX; torch uses X; told ONEDNN_MAX_CPU_ISA=AVX2 NUMBA_CPU_NAME=generic",
        ),
    ],
)
def test_the_line_names_the_units_and_the_switches(
    flags: str, told: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CORE.format(0, flags) + CORE.format(1, flags))
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "X")
    for name in machine.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert machine.units() == f"units: {expected}"


def test_the_line_says_so_if_the_units_are_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert machine.units().startswith("units: unknown for ")


def test_a_quiet_run_of_tests_begins_with_the_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests/test_errors_documented.py"), "--collect-only"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout.startswith(f"{machine.units()}\n"), ended.stdout + ended.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_plain_tests_run_without_units() -> None:
    pytest.importorskip("numba")
    recipe = subprocess.run(["make", "-n", "test-plain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in recipe.splitlines() if "pytest" in line)
    told = dict(word.split("=", 1) for word in shlex.split(line.partition(" -m pytest")[0])[:-1])
    assert set(told) <= set(machine.SWITCHES)
    environment = os.environ | told | {"ONEDNN_VERBOSE": "1"}
    ended = subprocess.run([sys.executable, "-c", USED], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = ended.stdout.splitlines()
    assert {"torch: DEFAULT", "torch: NO AVX"} & set(found), ended.stdout + ended.stderr  # torch 2.6 says NO AVX
    assert "bfloat16: False" in found
    assert "compiled: ['xmm']" in found
    assert "matrix unit: False" in found
    if torch.backends.mkldnn.is_available():
        assert any("cpu,isa:Intel SSE4.1" in line for line in found)

"""Peak memory of whole vqbeam commands at 1x and 10x the rows, as a table.

`python -m benchmarks.support.peak_memory FILE encode ...` runs a command and leaves its peak in a file. The kernel's
figure for a child that was waited for is no use: it begins at what the parent had when it started the child.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.machine import ROOT
from pipelines.__main__ import main
from pipelines.process import reuse_freed_memory

COMMON = ("--device", "cpu", "--batch_size", "64")
ALLOWED = 1.10  # of the peak with one tenth of the rows


@dataclass(frozen=True)
class Case:
    """Two runs that differ in their rows only; `small` and `large` are flags of a vqbeam command."""

    what: str
    small: Sequence[str]
    large: Sequence[str]


def measure(cases: Sequence[Case], folder: Path, rows: int) -> bool:
    """Runs the cases in turn, prints a table, and returns whether each ratio is allowed. `rows` is 1x.

    The run `run` (0 or 1) of case number `case` writes to `folder / f"out-{case}-{run}"`.
    """
    print(f"| what | {rows} rows, MiB | {10 * rows} rows, MiB | ratio |\n|---|---|---|---|", flush=True)
    within = True
    for number, case in enumerate(cases):
        peaks = [
            peak_memory([*flags, "--output", str(folder / f"out-{number}-{run}")], folder / "peak")
            for run, flags in enumerate((case.small, case.large))
        ]
        ratio = peaks[1] / peaks[0]
        within &= ratio <= ALLOWED
        print(f"| {case.what} | {peaks[0]:.0f} | {peaks[1]:.0f} | {ratio:.3f} |", flush=True)
    print(f"\n{'All' if within else 'NOT all'} ratios are at most {ALLOWED:.2f}.")
    return within


def peak_memory(flags: Sequence[str], result: Path) -> float:
    """MiB that the process of a vqbeam command with one worker had resident at most; `result` is a file to use.

    Raises `RuntimeError` if the command fails.
    """
    command = [sys.executable, "-m", "benchmarks.support.peak_memory", str(result), *flags, *COMMON]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vqbeam {flags[0]} ended with {done.returncode}:\n{done.stderr}")
    return int(result.read_text(encoding="ascii")) / 1024


def own_peak_kib() -> int:
    """KiB of memory that this process had resident at most, from Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")
    return int(found[1])


if __name__ == "__main__":
    reuse_freed_memory()  # as the command does
    code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(str(own_peak_kib()), encoding="ascii")
    sys.exit(code)

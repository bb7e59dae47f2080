"""Peak memory of whole vqbeam commands at 1x and 10x the rows, as a table: what the memory benchmarks share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMON = ("--device", "cpu", "--batch_size", "64")
ALLOWED = 1.10  # of the peak with one tenth of the rows


@dataclass(frozen=True)
class Case:
    """Two runs that may differ in their rows only; `small` and `large` are flags of a vqbeam command."""

    what: str
    small: Sequence[str]
    large: Sequence[str]


def measure(cases: Sequence[Case], folder: Path, rows: int) -> bool:
    """Run the cases in turn, print a table, and tell whether each ratio is allowed. `rows` is 1x.

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
    """MiB resident at most in the process of a vqbeam command with one worker, by way of the file `result`.

    Raises `RuntimeError` if the command fails.
    """
    command = [sys.executable, "-m", "benchmarks.measured_command", str(result), *flags, *COMMON]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vqbeam {flags[0]} ended with {done.returncode}:\n{done.stderr}")
    return int(result.read_text(encoding="ascii")) / 1024

"""Peak memory of a whole vqbeam command.

`python -m benchmarks.support.peak_memory FILE encode ...` runs a command and leaves its peak in a file. The kernel's
figure for a child that was waited for is no use: it begins at what the parent had when it started the child.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.__main__ import main
from pipelines.process import reuse_freed_memory

ROOT = Path(__file__).resolve().parents[2]  # `machine` would import torch, which not every command does


def peak_memory(words: Sequence[str]) -> float:
    """MiB that the process of a vqbeam command with one worker had resident at most.

    Raises `RuntimeError` if the command fails.
    """
    with tempfile.NamedTemporaryFile() as result:
        command = [sys.executable, "-m", "benchmarks.support.peak_memory", result.name, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"vqbeam {words[0]} ended with {done.returncode}:\n{done.stderr}")
        return int(result.read()) / 1024


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

"""The peak memory of a call, as the kernel counts it for another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

STEADY = {  # what is freed goes back to the kernel at once: a peak is what was held, and the same each time
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 16),
}
SCRIPT = """
import sys
{imports}

def memory(field):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines[field].split()[0]) * 1024

arguments = sys.argv[1:]
{warm_up}  # loads what torch loads on first use
before = memory("VmRSS")
kept = {call}
print(memory("VmHWM") - before)
"""


def peak_of(imports: str, warm_up: str, call: str, *arguments: Path) -> int:
    """Bytes above what the process held after `warm_up`; both expressions may use `arguments`. Linux only."""
    environment = {**os.environ, **STEADY, "PYTHONPATH": str(ROOT)}
    script = SCRIPT.format(imports=imports, warm_up=warm_up, call=call)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return int(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)

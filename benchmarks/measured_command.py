"""A vqbeam command in a process of its own that leaves its peak memory in a file: `measured_command FILE encode ...`.

The kernel's figure for a waited-for child is no use: it begins at what the parent had when it started the child.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pipelines.__main__ import main
from pipelines.process import reuse_freed_memory


def peak_kib() -> int:
    """KiB of memory that this process had resident at most, from Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")
    return int(found[1])


if __name__ == "__main__":
    reuse_freed_memory()  # as the command does
    code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(str(peak_kib()), encoding="ascii")
    sys.exit(code)

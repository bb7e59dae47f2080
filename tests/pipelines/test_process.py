from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

FAULTS = """
import resource, sys, threading
from pipelines.process import reuse_freed_memory

if sys.argv[1] == "reuse":
    assert reuse_freed_memory()
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(48 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

counts = []
thread = threading.Thread(target=lambda: (faults(), counts.append(faults())))
thread.start()
thread.join()
print(counts[0])
"""


def page_faults(mode: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FAULTS, mode]
    return int(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_a_thread_gets_freed_arrays_back_without_page_faults() -> None:
    fresh, reused = page_faults("fresh"), page_faults("reuse")
    assert fresh > 8 * 20  # huge pages, if the system has them, are 2 MiB
    assert reused < fresh / 10

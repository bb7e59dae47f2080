from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.paths import ROOT
from tests.support.shard_runs import PlainStep, resources, run_shard, shard_case

GAPS = """
import sys
from pipelines.process import reuse_freed_memory

assert reuse_freed_memory()
import numpy as np
from transforms.engine.resources import STATM, FreedMemory

def megabytes():
    return int(STATM.read_text().split()[1]) * 4096 >> 20

def used_and_freed(count):
    # Arrays with something small between each two, which is held: what is freed is gaps.
    arrays, held = [], []
    for _ in range(count):
        arrays.append(np.ones(1 << 20, np.uint8))
        held.append(bytes(2000))
    return held

memory = FreedMemory()
first, then = (int(count) for count in sys.argv[1:])
held = used_and_freed(first)
memory.after_batch()
held += used_and_freed(first + then)
before = megabytes()
memory.after_batch()
print(before - megabytes())
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is that of glibc")


def megabytes_given_back(first: int, more: int) -> int:
    """By a process whose first batch used and freed `first` MiB in pieces, and the second `more` than that."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GAPS, str(first), str(more)]
    return int(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)


def test_gaps_between_what_is_held_go_back_to_the_system_once_a_process_has_grown() -> None:
    assert megabytes_given_back(first=50, more=100) > 130


def test_a_process_that_has_not_grown_keeps_its_gaps_for_the_next_batch() -> None:
    assert megabytes_given_back(first=150, more=0) == 0


def test_a_shard_looks_at_its_memory_after_each_batch(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"))
    batches, looks = [], []

    class Step(PlainStep):
        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            batches.append(batch.num_rows)
            return super().__call__(batch)

    with resources(Step()) as owned:
        owned.memory.after_batch = lambda: looks.append(len(batches))  # type: ignore[method-assign]
        run_shard(case.shards[0], case.job, owned)
    assert looks == list(range(1, len(batches) + 1)) != []

"""The memory of an export depends on its largest shard, not on its rows: measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.paths import ROOT
from tests.support.peak_memory import STEADY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only"),
]
CODES = 1024
ROW_BYTES = 2 * CODES
SHARD = 2_000
MEASURE = """
import sys
from pathlib import Path
import pipelines.export
from pipelines.__main__ import main
from pipelines.process import reuse_freed_memory
reuse_freed_memory()  # as the command does
pipelines.export.SORTED_ROWS = int(sys.argv[1])
code = main(sys.argv[2:])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(code, int(status["VmHWM"].split()[0]) * 1024)
"""


def tokens(folder: Path, rows: int) -> Path:
    folder.mkdir()
    for first in range(0, rows, SHARD):
        codes = np.random.default_rng(first).integers(0, 16_384, (SHARD, CODES), np.uint16)
        columns = {
            "key": [f"k{first + number}" for number in range(SHARD)],
            "encoding": pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), CODES),
        }
        pq.write_table(pa.table(columns), folder / f"{first:07d}.parquet", row_group_size=500, use_dictionary=False)
    return folder


def peak(source: Path, output: Path, shard: int, layout: str) -> int:
    words = ["export", "--input", source, "--output", output, "--layout", layout, "--rows_per_shard", shard]
    command = [sys.executable, "-c", MEASURE, str(SHARD), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **STEADY}, capture_output=True, text=True)
    code, found = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    return int(found)


@pytest.mark.parametrize("layout", ["parquet", "mds"])  # mds holds a shard as bytes, too
def test_ten_times_the_rows_take_the_same_memory_and_a_larger_shard_its_own(layout: str, tmp_path: Path) -> None:
    few, many = tokens(tmp_path / "few", 2 * SHARD), tokens(tmp_path / "many", 20 * SHARD)
    once = peak(few, tmp_path / "a", SHARD, layout)
    ten_times = peak(many, tmp_path / "b", SHARD, layout)
    large = peak(many, tmp_path / "c", 10 * SHARD, layout)
    assert ten_times - once < 10 * SHARD * ROW_BYTES, "half of the rows that were added"
    assert large - once < 6 * 9 * SHARD * ROW_BYTES, "what a larger shard holds more, some times over"

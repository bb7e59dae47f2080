"""`TokenDataset` holds a window of rows, however many there are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.peak_memory import peak_of

CODES = 1024
GROUP = 1_000
IMPORTS = "from vqbeam import TokenDataset"
CALL = "sum(1 for _ in TokenDataset(arguments[0], shuffle=True, window_rows={window}))"


def tokens(folder: Path, tables: int, rows: int) -> Path:
    folder.mkdir()
    for number in range(tables):
        codes = np.random.default_rng(number).integers(0, 16_384, (rows, CODES), np.uint16)
        columns = {
            "key": [f"k{number}-{row}" for row in range(rows)],
            "encoding": pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), CODES),
        }
        pq.write_table(pa.table(columns), folder / f"{number:03d}.parquet", row_group_size=GROUP, use_dictionary=False)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only")
def test_ten_times_the_rows_or_one_table_of_them_take_the_same_memory(tmp_path: Path) -> None:
    few = tokens(tmp_path / "few", 4, GROUP)
    warm_up, call = CALL.format(window=GROUP), CALL.format(window=2 * GROUP)
    once, ten_times, one_table = (
        peak_of(IMPORTS, warm_up.replace("arguments[0]", "arguments[1]"), call, folder, few)
        for folder in (few, tokens(tmp_path / "many", 40, GROUP), tokens(tmp_path / "one", 1, 40 * GROUP))
    )
    rows_added = 36 * GROUP * 2 * CODES
    assert ten_times - once < rows_added // 2
    assert one_table - once < rows_added // 2

"""Reading costs the same memory for five times the rows: measured in processes of their own."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

IMAGE_BYTES = 20_000
MEASURE = """
import sys
from pathlib import Path
from tests.support.read_inputs import plan
from transforms.inputs.formats import read_slices
planned = plan(sys.argv[1])
rows = sum(batch.num_rows for batch in read_slices([p.slice for p in planned.pieces], planned.schema))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(rows, int(status["VmHWM"].split()[0]) // 1024)  # getrusage would count the parent, too
"""


def images(count: int) -> list[bytes]:
    noise = np.random.default_rng(0).bytes(IMAGE_BYTES + count)
    return [noise[number : number + IMAGE_BYTES] for number in range(count)]


def one_row_group(path: Path, count: int) -> Path:
    table = pa.table({"image": images(count)})
    pq.write_table(
        table, path / "a.parquet", row_group_size=count, write_batch_size=32, use_dictionary=False, compression="none"
    )
    assert pq.ParquetFile(path / "a.parquet").num_row_groups == 1
    return path


def tar(path: Path, count: int) -> Path:
    with tarfile.open(path / "a.tar", "w") as out:
        for number, data in enumerate(images(count)):
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def jsonl(path: Path, count: int) -> Path:
    text = base64.b64encode(images(1)[0]).decode()
    (path / "a.jsonl").write_text("".join(f'{{"key": "{i}", "image": "{text}"}}\n' for i in range(count)))
    return path


def table(path: Path, count: int, ending: str, mark: str) -> Path:
    text = base64.b64encode(images(1)[0]).decode()
    (path / f"a.{ending}").write_text(f"key{mark}image\n" + "".join(f"{i}{mark}{text}\n" for i in range(count)))
    return path


def csv(path: Path, count: int) -> Path:
    return table(path, count, "csv", ",")


def tsv(path: Path, count: int) -> Path:
    return table(path, count, "tsv", "\t")


def folder(path: Path, count: int) -> Path:
    for number, data in enumerate(images(count)):
        (path / f"{number:06d}.jpg").write_bytes(b"\xff\xd8\xff" + data)
    return path


def peak_mib(path: Path, rows: int) -> int:
    """The most resident memory of a process that reads a dataset, in MiB."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    found, peak = done.stdout.split()
    assert int(found) == rows
    return int(peak)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
@pytest.mark.parametrize("write", [one_row_group, tar])
def test_five_times_the_rows_take_no_more_memory(tmp_path: Path, write: Callable[[Path, int], Path]) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = peak_mib(write(tmp_path / "small", 1000), 1000)  # four batches
    large = peak_mib(write(tmp_path / "large", 5000), 5000)
    assert large < small * 1.1, f"{small} MiB for 20 MB, {large} MiB for 100 MB"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
@pytest.mark.parametrize("write", [csv, tsv, jsonl, one_row_group, tar, folder])
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path, write: Callable[[Path, int], Path]) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = peak_mib(write(tmp_path / "small", 1000), 1000)
    large = peak_mib(write(tmp_path / "large", 10_000), 10_000)
    assert large < small * 1.1, f"{small} MiB for 20 MB, {large} MiB for 200 MB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_rows_in_one_group_take_no_more_memory_than_in_many(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(2_000_000)
    table = pa.table({"image": [noise[number * 2500 : 1_500_000 + number * 2500] for number in range(100)]})
    peaks = []
    for rows in (100, 10):
        (tmp_path / str(rows)).mkdir()
        pq.write_table(table, tmp_path / str(rows) / "a.parquet", row_group_size=rows)  # one page a group, compressed
        peaks.append(peak_mib(tmp_path / str(rows), 100))
    assert peaks[0] < peaks[1] * 1.2, f"{peaks[0]} MiB in one group of 150 MB, {peaks[1]} MiB in ten"

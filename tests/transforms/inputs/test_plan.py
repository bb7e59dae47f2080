"""However inputs are cut into shards, the rows are the same; and no shard is larger than asked if rows are known."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.make_inputs import folder, tar_of
from tests.support.read_inputs import plan, read_plan
from transforms.inputs.plan import make_shards

ROWS = 61


def parquet_files(path: Path) -> None:
    for name, rows, group in (("a", 30, 7), ("b", 1, 1), ("c", 25, 100), ("d", 5, 2)):
        columns = {"image": [f"{name}{row}".encode() for row in range(rows)], "n": list(range(rows))}
        pq.write_table(pa.table(columns), path / f"{name}.parquet", row_group_size=group)


def tars(path: Path) -> None:
    choice = random.Random(0)
    for name, count in (("a.tar", 40), ("b.tar", 20)):
        members = [
            member
            for number in range(count)
            for member in (
                (f"{number:03d}.jpg", choice.randbytes(choice.randrange(9000))),
                (f"{number:03d}.json", json.dumps({"n": number}).encode()),
            )
        ]
        (path / name).write_bytes(tar_of(members))
    (path / "c.tar.gz").write_bytes(gzip.compress(tar_of([("x.jpg", b"x"), ("x.json", b'{"n": 1}')])))


def csv_files(path: Path) -> None:
    lines = [
        f'{row}.jpg,"caption\n{row}, ""quoted"" ä"\n' if row % 3 else f"{row}.jpg,{row}\r\n" for row in range(ROWS)
    ]
    folder(path, {"a.csv": "path,caption\n" + "".join(lines[:50]), "b.csv": "path,caption\n" + "".join(lines[50:])})


def jsonl_files(path: Path) -> None:
    lines = [json.dumps({"path": f"{row}.jpg", "n": row}, ensure_ascii=False) + "\n" for row in range(ROWS)]
    lines[20] = "broken\n"
    folder(path, {"a.jsonl": "\n".join(lines[:40]), "b.jsonl.gz": gzip.compress("".join(lines[40:]).encode())})


def image_files(path: Path) -> None:
    folder(path, {f"d{row % 3}/{row:02d}.png": b"%d" % row for row in range(ROWS)})
    folder(path, {f"d{row % 3}/{row:02d}.txt": f"{row}" for row in range(0, ROWS, 2)})


def described_images(path: Path) -> None:
    folder(path, {f"{row:02d}.png": b"%d" % row for row in range(ROWS)})
    folder(path, {"metadata.csv": "file_name,text\n" + "".join(f"{row:02d}.png,{row}\n" for row in range(40))})


WRITERS = [parquet_files, tars, csv_files, jsonl_files, image_files, described_images]


@pytest.mark.parametrize("write", WRITERS)
def test_cut_and_whole_reading_give_the_same_rows(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    whole = read_plan(plan(tmp_path))
    assert len(whole) == ROWS
    for rows_per_shard in (1, 2, 3, 7, 10, 25, 60, 61, 100):
        planned = plan(tmp_path, rows_per_shard=rows_per_shard)
        assert read_plan(planned, rows_per_shard) == whole
        assert planned.schema == plan(tmp_path).schema


@pytest.mark.parametrize("write", [parquet_files, csv_files, image_files])
def test_shards_have_at_most_the_rows_asked_for_where_they_are_known(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    planned = plan(tmp_path, rows_per_shard=10)
    shards = make_shards(planned.pieces, 10, first_index=5)
    assert [shard.index for shard in shards] == list(range(5, 5 + len(shards)))
    sizes = [sum(part.stop - part.start for part in shard.slices if part.stop is not None) for shard in shards]
    assert max(sizes) <= 10
    assert len(shards) <= 2 * ROWS / 10


def test_small_files_are_packed_together(tmp_path: Path) -> None:
    image_files(tmp_path)
    shards = make_shards(plan(tmp_path, rows_per_shard=30).pieces, 30)
    assert [len(shard.slices) for shard in shards] == [30, 30, 1]


def test_a_tar_is_cut_by_the_size_of_its_first_samples(tmp_path: Path) -> None:
    members = [(f"{number:05d}.jpg", b"x" * 5000) for number in range(1000)]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    planned = plan(tmp_path, rows_per_shard=100)
    assert 9 <= len(planned.pieces) <= 12
    assert planned.pieces[-1].slice.stop is None
    assert len(read_plan(planned, 100)) == 1000


def test_a_gzipped_tar_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of([(f"{n}.jpg", b"x") for n in range(50)])))
    assert len(plan(tmp_path, rows_per_shard=5).pieces) == 1


def test_footers_of_small_files_are_not_read(tmp_path: Path) -> None:
    parquet_files(tmp_path)
    planned = plan(tmp_path)
    assert [piece.slice.stop is not None for piece in planned.pieces] == [True, False, False, False]
    (tmp_path / "b.parquet").write_bytes(b"x" * (tmp_path / "b.parquet").stat().st_size)
    assert len(plan(tmp_path).pieces) == 4


def test_planning_imports_no_torch() -> None:
    code = "import sys, transforms.inputs.plan; sys.exit('torch' in sys.modules or 'apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

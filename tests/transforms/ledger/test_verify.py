"""What `vqbeam verify` finds: a line for each way in which a folder differs from its marks, none where it is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.shard_runs import LAYOUTS, attempt, faults_of, shard_case
from transforms import storage

MARK = "_vqbeam/stats/00000.json"


def rewrite_mark(output: Path, **values: object) -> None:
    mark = json.loads((output / MARK).read_text())
    (output / MARK).write_text(json.dumps(mark | values))


def resign(output: Path, path: str) -> None:
    """Make the mark's size and checksum those of a file that was changed."""
    mark = json.loads((output / MARK).read_text())
    for item in mark["objects"]:
        if item["path"] == path:
            item |= {"size": (output / path).stat().st_size, "sha256": storage.sha256(str(output / path))}
    (output / MARK).write_text(json.dumps(mark))


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def first(output: Path, pattern: str) -> Path:
    return sorted(output.glob(pattern))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_as_it_was_written_is_well(tmp_path: Path, layout: str) -> None:
    case = shard_case(tmp_path, layout, str(tmp_path / "out"))
    attempt(case)
    assert faults_of(case) == []


def one_row_less(output: Path) -> None:
    path = output / "data" / "00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    resign(output, "data/00000.parquet")


def change_list(output: Path, **values: object) -> None:
    path = first(output, "_vqbeam/files/*")
    row, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps(json.loads(row) | values) + "\n", *rows]))


def no_table(output: Path) -> None:
    (output / "data" / "00000.parquet").write_bytes(b"no table")
    resign(output, "data/00000.parquet")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda output: (output / MARK).unlink(), "shard 00000 is not done"),
        (lambda output: first(output, "images/00000/*").unlink(), ".png is missing"),
        (lambda output: first(output, "data/0*").write_bytes(b""), "data/00000.parquet has 0 bytes, its mark says"),
        (lambda output: flip_last_byte(first(output, "images/00000/*")), "has another checksum than its mark says"),
        (lambda output: flip_last_byte(first(output, "_vqbeam/errors/*")), "has another checksum than its mark says"),
        (lambda output: first(output, "_vqbeam/errors/*").unlink(), "errors/"),
        (lambda output: rewrite_mark(output, rows_read=9), "shard 00000: 9 rows read, 8 accounted for"),
        (one_row_less, "data/00000.parquet has 6 rows, its mark says 7"),
        (no_table, "data/00000.parquet is no readable Parquet file"),
        (lambda output: first(output, "_vqbeam/files/*").unlink(), "jsonl is missing: `vqbeam verify --repair "),
        (lambda output: first(output, "_vqbeam/files/*").write_bytes(b"no list"), "jsonl is damaged: "),
        (lambda output: change_list(output, path="../../x"), "is damaged: it lists files outside of the folder"),
        (lambda output: change_list(output, size=7), "bytes, its mark says 7"),
        (lambda output: change_list(output, size="7"), "jsonl is damaged: "),
        (lambda output: (output / "images" / "00000" / "extra.png").touch(), "images/00000/extra.png is in no mark"),
        (lambda output: (output / "data" / "00001.parquet").touch(), "data/00001.parquet is in no mark"),
        (
            lambda output: (output / "_vqbeam" / "errors" / "00000.12.parquet").touch(),
            "_vqbeam/errors/00000.12.parquet is in no mark",
        ),
    ],
)
def test_each_harm_is_found(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    case = shard_case(tmp_path, "files", str(tmp_path / "out"), rows=8)
    attempt(case)
    (tmp_path / "out" / "data" / ".hidden").touch()
    harm(tmp_path / "out")
    found = faults_of(case)
    assert any(said in line for line in found), found


def test_one_file_too_many_is_one_line(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "webdataset", str(tmp_path / "out"))
    attempt(case)
    (tmp_path / "out" / "tars" / "00009.tar").touch()
    assert faults_of(case) == ["tars/00009.tar is in no mark"]


def test_images_are_not_kept_in_memory_over_all_shards(tmp_path: Path) -> None:
    from transforms.ledger.verify import _check_shard

    case = shard_case(tmp_path, "files", str(tmp_path / "out"))
    attempt(case)
    known, found = _check_shard(case.output, 0)
    assert found == []
    assert {path.split("/")[0] for path in known} == {"_vqbeam", "data"}

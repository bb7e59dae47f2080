"""Files of images are listed beside the mark, which does not grow with them; marks of earlier versions list them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support.shard_runs import ShardCase, attempt, faults_of, shard_case
from transforms.ledger.file_lists import listed_objects, store_list
from transforms.ledger.folder import OutputFolder
from transforms.ledger.marks import read_mark
from transforms.ledger.totals import total_of
from transforms.ledger.types import StoredObject


def written(folder: Path, rows: int) -> ShardCase:
    case = shard_case(folder, "files", str(folder / "out"), rows=rows)
    attempt(case)
    return case


def mark_of(case: ShardCase) -> Path:
    return Path(OutputFolder(case.output).stats("00000"))


def test_a_mark_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    few, many = written(tmp_path / "few", 8), written(tmp_path / "many", 200)
    assert len(list(Path(many.output, "images", "00000").iterdir())) == 199
    assert mark_of(many).stat().st_size < mark_of(few).stat().st_size + 50


def test_the_list_has_every_file_with_its_bytes(tmp_path: Path) -> None:
    case = written(tmp_path, 20)
    objects = listed_objects(case.output, read_mark(str(mark_of(case))))
    there = {
        str(path.relative_to(case.output)): path.stat().st_size
        for path in Path(case.output).rglob("*")
        if path.is_file() and path.relative_to(case.output).parts[1] not in ("stats", "plan.json", "shards.parquet")
    }
    assert {item.path: item.size for item in objects} == there
    assert total_of(case.output).bytes == sum(size for name, size in there.items() if "_vqbeam/files" not in name)


@pytest.mark.parametrize("harm", [False, True])
def test_the_mark_of_an_earlier_version_lists_the_files_itself(tmp_path: Path, harm: bool) -> None:
    case = written(tmp_path, 20)
    mark = read_mark(str(mark_of(case)))
    assert mark.files is not None
    objects = [item for item in listed_objects(case.output, mark) if item != mark.files]
    earlier = {name: value for name, value in mark.values.items() if name not in ("files", "bytes")}
    mark_of(case).write_text(json.dumps({**earlier, "objects": [asdict(item) for item in objects]}))
    Path(case.output, mark.files.path).unlink()
    assert total_of(case.output).bytes == mark.bytes
    if harm:
        next(Path(case.output, "images", "00000").iterdir()).unlink()
    assert [line.partition("png ")[2] for line in faults_of(case)] == ["is missing"] * harm


def test_the_list_depends_on_the_files_alone(tmp_path: Path) -> None:
    """An attempt that comes late sweeps the lists of others: its own must be that of the mark."""
    files = [StoredObject(f"images/00000/{name}.png", 7, "0" * 64) for name in "bca"]
    folder = OutputFolder(str(tmp_path))
    lists = [store_list(folder, "00000", order) for order in (files, files[::-1])]
    assert lists[0] == lists[1]
    assert [*(tmp_path / "_vqbeam" / "files").iterdir()] == [tmp_path / lists[0].path]
    assert "a.png" in (tmp_path / lists[0].path).read_text().splitlines()[0]

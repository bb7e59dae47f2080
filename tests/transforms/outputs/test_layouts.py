"""Where rows end up: columns and types of the tables, names and members of pictures, fixed bytes of tars."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.shard_runs import attempt, shard_case
from transforms.ledger.tables import COUNTS_KEY, PROVENANCE_KEY
from transforms.ledger.types import unpack_codes
from transforms.outputs.tar import COUNTS_MEMBER, _as_text


def test_token_rows_have_the_columns_that_training_reads(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "tokens", str(tmp_path / "out"))
    report = attempt(case)
    table = pq.read_table(f"{case.output}/data/00000.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "key": "string",
        "caption": "string",
        "encoding": "fixed_size_list<element: uint16>[4]",
        "original_width": "int32",
        "original_height": "int32",
    }
    assert json.loads(table.schema.metadata[PROVENANCE_KEY.encode()]) == {"command": "test"}
    footer = pq.read_metadata(f"{case.output}/data/00000.parquet").metadata
    assert json.loads(footer[COUNTS_KEY.encode()])["rows_read"] == 7
    used = {code for codes in table["encoding"].to_pylist() for code in codes}
    assert set(unpack_codes(report.counts.codes_used).nonzero()[0].tolist()) == used


def test_pictures_as_files_are_named_in_the_table(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "files", str(tmp_path / "out"))
    attempt(case)
    paths = pq.read_table(f"{case.output}/data/00000.parquet")["image_path"].to_pylist()
    assert paths[:2] == ["images/00000/0000000-key-0_0.png", "images/00000/0000002-key-2_0.png"]
    assert Image.open(f"{case.output}/{paths[1]}").getpixel((0, 0)) == (40, 40, 40)


def test_tars_hold_picture_and_row_in_order_and_the_counts_last(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "webdataset", str(tmp_path / "out"))
    attempt(case)
    with tarfile.open(f"{case.output}/tars/00000.tar") as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        assert names[:2] == ["0000000-key-0_0.png", "0000000-key-0_0.json"]
        assert names[-1] == COUNTS_MEMBER
        assert len(names) == 2 * 6 + 1
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
        row = json.loads(tar.extractfile(names[1]).read())  # type: ignore[union-attr]
        assert row == {"key": "Key/0", "caption": "c"}


def test_pictures_in_the_table_are_as_hugging_face_stores_them(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "parquet", str(tmp_path / "out"))
    attempt(case)
    cells = pq.read_table(f"{case.output}/data/00000.parquet")["image"].to_pylist()
    assert cells[0]["path"] == "0000000-key-0_0.png"
    assert Image.open(io.BytesIO(cells[0]["bytes"])).size == (16, 16)


@pytest.mark.parametrize(
    ("value", "text"), [(b"\x01\xff", "01ff"), (datetime.date(2026, 1, 2), "2026-01-02"), (pa.scalar(1), "1")]
)
def test_what_json_has_no_type_for_is_text(value: object, text: str) -> None:
    assert _as_text(value) == text

"""Where rows end up: columns and types of the tables, names and members of images, fixed bytes of tars."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import command, parsing
from tests.support.paths import ROOT
from tests.support.shard_runs import attempt, faults_of, shard_case
from transforms.ledger.tables import COUNTS_KEY, PROVENANCE_KEY
from transforms.outputs.layout import LAYOUTS, find_layout
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
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(report.counts.codes_used), np.uint8))
    assert set(bits.nonzero()[0].tolist()) == used


def test_images_as_files_are_named_in_the_table(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "files", str(tmp_path / "out"))
    attempt(case)
    paths = pq.read_table(f"{case.output}/data/00000.parquet")["image_path"].to_pylist()
    assert paths[:2] == ["images/00000/0000000-key-0_0.png", "images/00000/0000002-key-2_0.png"]
    assert Image.open(f"{case.output}/{paths[1]}").getpixel((0, 0)) == (40, 40, 40)


def test_tars_hold_image_and_row_in_order_and_the_counts_last(tmp_path: Path) -> None:
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


def test_images_in_the_table_are_as_hugging_face_stores_them(tmp_path: Path) -> None:
    case = shard_case(tmp_path, "parquet", str(tmp_path / "out"))
    attempt(case)
    cells = pq.read_table(f"{case.output}/data/00000.parquet")["image"].to_pylist()
    assert cells[0]["path"] == "0000000-key-0_0.png"
    assert Image.open(io.BytesIO(cells[0]["bytes"])).size == (16, 16)


@pytest.mark.parametrize(
    ("value", "text"), [(b"\x01\xff", "01ff"), (datetime.date(2026, 1, 2), "2026-01-02"), (pa.scalar(1), "1")]
)
def test_values_without_a_json_type_become_text(value: object, text: str) -> None:
    assert _as_text(value) == text


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_in_the_help_and_in_the_docs(name: str) -> None:
    for writer in ("decode", "generate", "vary"):
        shown = " ".join(parsing.parser_of(writer, command.find(writer)).format_help().split())
        assert f"{name}: {LAYOUTS[name][1]}" in shown
    assert f"`{name}`" in (ROOT / "docs" / "decode.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_are_read_back_with_the_rows_that_name_them(tmp_path: Path, name: str) -> None:
    case = shard_case(tmp_path, name, str(tmp_path / "out"))
    assert attempt(case).status == "done"
    main = find_layout(name).main
    uri = f"{case.output}/{main.folder}/00000.{main.suffix}"
    with find_layout(name).open_images(uri, case.output, ("key", "caption")) as images:
        found = [(image.read()[1], image.row) for image in images(0.0)]
    assert [(row["key"], row["caption"]) for _, row in found[:2]] == [("Key/0", "c"), ("Key/2", "c")]
    assert Image.open(io.BytesIO(found[1][0])).getpixel((0, 0)) == (40, 40, 40)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_main_object_that_vqbeam_did_not_write_fails_its_shard(tmp_path: Path, name: str) -> None:
    case = shard_case(tmp_path, name, str(tmp_path / "out"))
    main = find_layout(name).main
    path = Path(case.output, main.folder, f"00000.{main.suffix}")
    path.parent.mkdir()
    path.write_bytes(b"not ours" * 1000)
    report = attempt(case)
    assert report.status == "failed"
    assert "was not written by vqbeam, or is damaged" in report.reason
    assert faults_of(case) != []

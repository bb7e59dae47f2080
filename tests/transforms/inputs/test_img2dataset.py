"""img2dataset's output folders: tars, folders of files, Parquet with the images inside."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.img2dataset_layouts import LAYOUTS, Download, write_parquet, write_webdataset
from tests.support.read_inputs import column, errors, passthrough, plan, read
from transforms.inputs.formats import read_slices

KEYS = ["000000000", "000000001", "000000002"]
ROWS = [Download(key, f"caption {key}", None if key == KEYS[1] else b"jpg") for key in KEYS]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path, "00000", ROWS)
    rows = [row for row in read(tmp_path) if row["filtered"] is None]
    assert errors(rows) == [None, None]
    assert column(rows, "key") == [KEYS[0], KEYS[2]]
    assert column(rows, "caption") == [f"caption {KEYS[0]}", f"caption {KEYS[2]}"]
    assert column(rows, "image") == [b"jpg", b"jpg"]
    assert column(rows, "pass:url") == [f"https://example.org/{KEYS[0]}.jpg", f"https://example.org/{KEYS[2]}.jpg"]
    assert column(rows, "pass:status") == ["success", "success"]
    assert column(rows, "pass:original_width") == [1024, 1024]
    assert column(rows, "pass:error_message") == [None, None]


def test_rows_that_were_not_downloaded_are_filtered(tmp_path: Path) -> None:
    write_parquet(tmp_path, "00000", ROWS)
    rows = read(tmp_path)
    assert column(rows, "filtered") == [None, "status", None]
    assert errors(rows) == [None, None, None]


def test_original_sizes_keep_their_names_and_integer_types(tmp_path: Path) -> None:
    write_parquet(tmp_path, "00000", ROWS)
    planned = plan(tmp_path)
    (batch,) = read_slices([piece.slice for piece in planned.pieces], planned.schema)
    kinds = {field.name: field.type for field in passthrough(batch).schema}
    assert kinds["original_width"] == kinds["original_height"] == pa.int32()
    assert "caption" not in kinds
    assert "key" not in kinds


def test_the_metadata_table_alone_is_a_table_of_addresses(tmp_path: Path) -> None:
    write_webdataset(tmp_path, "00000", ROWS)
    rows = read(tmp_path / "00000.parquet", uri_schemes=("https",))
    assert column(rows, "image_uri") == [f"https://example.org/{key}.jpg" for key in KEYS]
    assert column(rows, "filtered") == [None, "status", None]

"""img2dataset's output folders as its writers lay them out: tars, folders of files, Parquet with the images inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from tests.read_inputs import column, errors, folder, plan, read
from transforms.sources import passthrough, read_slices

SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
    ]
)
STATS = '{"count": 3, "successes": 2, "failed_to_download": 1}'


def record(number: int, downloaded: bool = True) -> dict[str, Any]:
    size = {"width": 256, "height": 256, "original_width": 640, "original_height": 480, "exif": "{}", "sha256": "00"}
    return {
        "url": f"http://host/{number}.jpg",
        "caption": f"caption {number}",
        "key": f"{number:09d}",
        "status": "success" if downloaded else "failed_to_download",
        "error_message": None if downloaded else "HTTP Error 404: Not Found",
        **(size if downloaded else dict.fromkeys(size)),
    }


def records() -> list[dict[str, Any]]:
    return [record(0), record(1, downloaded=False), record(2)]


def write_metadata(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(records(), SCHEMA), path / "00000.parquet")
    (path / "00000_stats.json").write_text(STATS)


def as_webdataset(path: Path) -> None:
    write_metadata(path)
    with wds.TarWriter(str(path / "00000.tar")) as writer:
        for row in records():
            if row["status"] == "success":
                meta = json.dumps(row, indent=4)
                writer.write({"__key__": row["key"], "jpg": b"jpg", "txt": row["caption"], "json": meta})


def as_files(path: Path) -> None:
    write_metadata(path)
    for row in records():
        if row["status"] == "success":
            name = f"00000/{row['key']}"
            folder(
                path, {f"{name}.jpg": b"jpg", f"{name}.txt": row["caption"], f"{name}.json": json.dumps(row, indent=4)}
            )


def as_parquet(path: Path) -> None:
    rows = [{**row, "jpg": b"jpg" if row["status"] == "success" else None, "txt": row["caption"]} for row in records()]
    schema = SCHEMA.append(pa.field("txt", pa.string())).append(pa.field("jpg", pa.binary()))
    pq.write_table(pa.Table.from_pylist(rows, schema), path / "00000.parquet")
    (path / "00000_stats.json").write_text(STATS)


@pytest.mark.parametrize("write", [as_webdataset, as_files, as_parquet])
def test_every_layout_gives_the_same_rows(tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    rows = [row for row in read(tmp_path) if row["filtered"] is None]
    assert errors(rows) == [None, None]
    assert column(rows, "key") == ["000000000", "000000002"]
    assert column(rows, "caption") == ["caption 0", "caption 2"]
    assert column(rows, "image") == [b"jpg", b"jpg"]
    assert column(rows, "pass:url") == ["http://host/0.jpg", "http://host/2.jpg"]
    assert column(rows, "pass:status") == ["success", "success"]
    assert column(rows, "pass:original_width") == [640, 640]
    assert column(rows, "pass:error_message") == [None, None]


def test_rows_that_were_not_downloaded_are_filtered(tmp_path: Path) -> None:
    as_parquet(tmp_path)
    rows = read(tmp_path)
    assert column(rows, "filtered") == [None, "status", None]
    assert errors(rows) == [None, None, None]


def test_original_sizes_keep_their_names_and_integer_types(tmp_path: Path) -> None:
    as_parquet(tmp_path)
    planned = plan(tmp_path)
    (batch,) = read_slices([piece.slice for piece in planned.pieces], planned.schema)
    kinds = {field.name: field.type for field in passthrough(batch).schema}
    assert kinds["original_width"] == kinds["original_height"] == pa.int32()
    assert "caption" not in kinds
    assert "key" not in kinds


def test_the_metadata_table_alone_is_a_table_of_addresses(tmp_path: Path) -> None:
    as_webdataset(tmp_path)
    rows = read(tmp_path / "00000.parquet", uri_schemes=("http",))
    assert column(rows, "image_uri") == [f"http://host/{number}.jpg" for number in range(3)]
    assert column(rows, "filtered") == [None, "status", None]

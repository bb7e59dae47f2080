"""Folders as img2dataset 1.4x writes them, in its three layouts: facts from its writer, data of our own.

Each shard has a table of all rows, failed ones too (`NNNNN.parquet`), and a summary (`NNNNN_stats.json`). No layout has
images and texts of failed rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from webdataset import TarWriter

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


@dataclass(frozen=True)
class Download:
    """A row; `image` is None if the download failed."""

    key: str
    caption: str
    image: bytes | None

    def meta(self) -> dict[str, object]:
        well = self.image is not None
        size = (256, 200, 1024, 800) if well else (None,) * 4
        return {
            "url": f"https://example.org/{self.key}.jpg",
            "caption": self.caption,
            "key": self.key,
            "status": "success" if well else "failed_to_download",
            "error_message": None if well else "HTTP Error 404: Not Found",
            **dict(zip(("width", "height", "original_width", "original_height"), size, strict=True)),
            "exif": "{}" if well else None,
            "sha256": "0" * 64 if well else None,
        }


def write_files(folder: Path, shard: str, rows: list[Download]) -> None:
    """--output_format files"""
    (folder / shard).mkdir(parents=True)
    for row in rows:
        if row.image is not None:
            (folder / shard / f"{row.key}.jpg").write_bytes(row.image)
            (folder / shard / f"{row.key}.txt").write_text(row.caption)
            (folder / shard / f"{row.key}.json").write_text(json.dumps(row.meta(), indent=4))
    _write_metadata(folder, shard, rows)


def write_webdataset(folder: Path, shard: str, rows: list[Download]) -> None:
    """--output_format webdataset"""
    folder.mkdir(parents=True, exist_ok=True)
    writer = TarWriter(str(folder / f"{shard}.tar"))
    for row in rows:
        if row.image is not None:
            meta = json.dumps(row.meta(), indent=4)
            writer.write({"__key__": row.key, "jpg": row.image, "txt": row.caption, "json": meta})
    writer.close()
    _write_metadata(folder, shard, rows)


def write_parquet(folder: Path, shard: str, rows: list[Download]) -> None:
    """--output_format parquet"""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [row.meta() | {"jpg": row.image} for row in rows]
    table = pa.Table.from_pylist(cells, SCHEMA.append(pa.field("jpg", pa.binary())))
    pq.write_table(table, folder / f"{shard}.parquet")
    _write_stats(folder, shard, rows)


def _write_metadata(folder: Path, shard: str, rows: list[Download]) -> None:
    pq.write_table(pa.Table.from_pylist([row.meta() for row in rows], SCHEMA), folder / f"{shard}.parquet")
    _write_stats(folder, shard, rows)


def _write_stats(folder: Path, shard: str, rows: list[Download]) -> None:
    successes = sum(row.image is not None for row in rows)
    stats = {"count": len(rows), "successes": successes, "failed_to_download": len(rows) - successes}
    (folder / f"{shard}_stats.json").write_text(json.dumps(stats))


LAYOUTS = {"files": write_files, "webdataset": write_webdataset, "parquet": write_parquet}

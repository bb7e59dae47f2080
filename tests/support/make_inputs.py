"""Input of jobs for tests: folders, tars and Parquet, made in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.fixtures_images import encoded, scene

GOOD = encoded(scene(40, 24), "JPEG")
Build = Callable[[Path], object]


def files(content: Mapping[str, bytes | str]) -> Build:
    def build(folder: Path) -> None:
        for name, data in content.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    return build


def tar(members: list[tuple[str, bytes | str]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(*names: str) -> list[tuple[str, bytes | str]]:
    """An image and a text for each name."""
    members: list[tuple[str, bytes | str]] = []
    for name in names:
        members += [(f"{name}.jpg", GOOD), (f"{name}.txt", f"caption {name}")]
    return members


def table(columns: Mapping[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out, **options)
    return out.getvalue()


def image_table(images: list[bytes | None], **columns: Any) -> bytes:
    """A table with typed columns; `columns` replace them or are added."""
    keys = [f"r{row}" for row in range(len(images))]
    own = {
        "key": pa.array(keys, pa.string()),
        "image": pa.array(images, pa.binary()),
        "caption": pa.array([f"c {key}" for key in keys], pa.string()),
    }
    return table({**own, **columns})

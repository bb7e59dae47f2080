"""Input of jobs for tests: folders, tars and Parquet, made in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.images import encoded, scene

HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"
GOOD = encoded(scene(40, 24), "JPEG")
Cell = bytes | str
Members = list[tuple[str, Cell]]
Build = Callable[[Path], object]


def folder(path: Path, files: Mapping[str, Cell]) -> Path:
    """Writes files below `path`, and returns it."""
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def files(content: Mapping[str, Cell]) -> Build:
    return partial(folder, files=content)


def tar_of(members: Iterable[tuple[str, Cell]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(*names: str) -> Members:
    """An image and a text for each name."""
    return [member for name in names for member in ((f"{name}.jpg", GOOD), (f"{name}.txt", f"caption {name}"))]


def pairs(count: int, size: int = 700) -> Members:
    """Bytes named as an image, and a text, for each key: for readers, which do not decode."""
    return [
        member
        for number in range(count)
        for member in ((f"{number:05d}.jpg", b"%05d" % number * (size // 5)), (f"{number:05d}.txt", f"cap {number}"))
    ]


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

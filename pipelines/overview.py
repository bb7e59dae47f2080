"""`--contact_sheet`: one PNG of the first pictures of an output folder, in plan order, with their captions."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from transforms import storage
from transforms.commit import IMAGE_PATH, TAR_COUNTS_MEMBER
from transforms.contact_sheet import contact_sheet
from transforms.layout import Layout

PICTURES = 48
PROMPT, CAPTION = "prompt", "caption"  # the column of the text; what generate writes may have a caption of its own


def write_contact_sheet(output: str) -> None:
    """Put `contact_sheet.png` into an output folder that holds pictures; nothing where there is none yet."""
    found = list(islice(_pictures(output), PICTURES))
    if found:
        sheet = contact_sheet([pixels for pixels, _ in found], [caption for _, caption in found])
        data = io.BytesIO()
        sheet.save(data, "PNG")
        storage.put_bytes(data.getvalue(), Layout(output).contact_sheet)


def _pictures(output: str) -> Iterator[tuple[np.ndarray, str]]:
    for info in storage.list_files(storage.join(output, "data")):
        yield from _from_table(info.uri, output)
    for info in storage.list_files(storage.join(output, "tars")):
        yield from _from_tar(info.uri)


def _from_table(uri: str, output: str) -> Iterator[tuple[np.ndarray, str]]:
    with storage.open_read(uri) as file:
        parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        names = parquet.schema_arrow.names
        column = IMAGE_PATH if IMAGE_PATH in names else "image"
        text = PROMPT if PROMPT in names else CAPTION
        for batch in parquet.iter_batches(batch_size=PICTURES, columns=[text, column]):
            for row in batch.to_pylist():
                stored = row[column]
                data = stored["bytes"] if column == "image" else storage.read_bytes(storage.join(output, stored))
                yield _pixels(data), _text(row[text])


def _from_tar(uri: str) -> Iterator[tuple[np.ndarray, str]]:
    with storage.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        data = b""
        for member in tar:
            content = tar.extractfile(member)
            if content is None or member.name == TAR_COUNTS_MEMBER:
                continue
            if member.name.endswith(".json"):
                row = json.loads(content.read())
                yield _pixels(data), _text(row[PROMPT] if PROMPT in row else row[CAPTION])
            else:
                data = content.read()


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _text(caption: Any) -> str:
    if isinstance(caption, list):
        return str(caption[0]) if caption else ""
    return caption or ""

"""`--contact_sheet`: one PNG of the first pictures of an output folder, in plan order, with what they show."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from transforms import storage
from transforms.batch import IMAGE_PATH
from transforms.ledger.commit import TAR_COUNTS_MEMBER
from transforms.ledger.folder import Layout
from transforms.outputs.contact_sheet import STRIP, balanced_columns, contact_sheet, montage

PICTURES = 48
PROMPT, CAPTION = "prompt", "caption"  # the column of the text; what generate writes may have a caption of its own


@dataclass(frozen=True)
class Shown:
    """A picture, what stands under it, and what it is grouped by: pictures of one prompt come one after the other."""

    pixels: np.ndarray
    text: str
    group: str


def write_contact_sheet(output: str) -> None:
    """Put `contact_sheet.png` into an output folder that holds pictures; nothing where there is none yet."""
    tiles: list[np.ndarray] = []
    texts: list[str] = []
    widest = 1
    for _, group in groupby(islice(_pictures(output), PICTURES), key=lambda shown: shown.group):
        found = list(group)
        tiles.append(found[0].pixels if len(found) == 1 else montage([shown.pixels for shown in found]))
        texts.append(found[0].text)
        widest = max(widest, min(len(found), STRIP))
    if tiles:
        columns = max(1, round(balanced_columns(len(tiles) * widest) / widest))
        sheet = contact_sheet(tiles, texts, columns=None if widest == 1 else columns)
        data = io.BytesIO()
        sheet.save(data, "PNG")
        storage.put_bytes(data.getvalue(), Layout(output).contact_sheet)


def _pictures(output: str) -> Iterator[Shown]:
    for info in storage.list_files(storage.join(output, "data")):
        yield from _from_table(info.uri, output)
    for info in storage.list_files(storage.join(output, "tars")):
        yield from _from_tar(info.uri)


def _from_table(uri: str, output: str) -> Iterator[Shown]:
    with storage.open_read(uri) as file:
        parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        names = parquet.schema_arrow.names
        column = IMAGE_PATH if IMAGE_PATH in names else "image"
        columns = [name for name in (PROMPT, CAPTION, "key", "sample") if name in names]
        for number, batch in enumerate(parquet.iter_batches(batch_size=PICTURES, columns=[*columns, column])):
            for place, row in enumerate(batch.to_pylist()):
                stored = row[column]
                data = stored["bytes"] if column == "image" else storage.read_bytes(storage.join(output, stored))
                yield _shown(data, row, f"{uri} {number} {place}")


def _from_tar(uri: str) -> Iterator[Shown]:
    with storage.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        data = b""
        for member in tar:
            content = tar.extractfile(member)
            if content is None or member.name == TAR_COUNTS_MEMBER:
                continue
            if member.name.endswith(".json"):
                yield _shown(data, json.loads(content.read()), member.name)
            else:
                data = content.read()


def _shown(data: bytes, row: Mapping[str, Any], place: str) -> Shown:
    """Pictures with a number are several of one row; every other stands alone."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    text = _text(row[PROMPT] if PROMPT in row else row[CAPTION])
    return Shown(pixels, text, f"{row['key']} {text}" if "sample" in row else place)


def _text(caption: Any) -> str:
    if isinstance(caption, list):
        return str(caption[0]) if caption else ""
    return caption or ""

"""Random small folders, tars and tables as people have them: every file and row has one end, images are Pillow's.

Files in = rows + texts that rows have + passed over; rows = good + rejected + filtered. Nothing is run but planning,
reading and preparing, which decide it; the engine checks its own sums in each shard.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transforms.errors import RowRejected
from transforms.images import ImageOptions, decode_image
from transforms.inputs.fetch import fetch_image, rejecting
from transforms.inputs.formats import read_slices
from transforms.inputs.plan import InputPlan, plan_sources
from transforms.inputs.request import InputRequest
from transforms.work.prepare import Pool, Pools, PrepareImages

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SIDE = 8
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".jpg", ".JPG", ".jpeg", ".jfif", ".jpe", ".jpg_large", ".png", ".webp", ".gif", ".bmp", ".tiff", "")
TEXT = re.compile(r"(?i)\.(txt|caption)$")
BAD = {"empty": b"", "html": b"<!DOCTYPE html>", "cut": b"\xff\xd8\xff\xe0\x00\x10JFIF", "zeros": bytes(64)}
CAPTIONS = (
    "a cat",
    '"the kiss',
    'sunset "',
    '5" pipe',
    "été",
    "  ",
    "",
    "two\nlines",
    'a "b" c',
    "x,y",
    "tom &amp; jerry",
)
FORMS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@cache
def image(kind: str, number: int) -> bytes:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    out = io.BytesIO()
    Image.fromarray(np.stack([x * 30, y * 30, (x + y + 40 * number) % 256], -1).astype("uint8")).save(out, kind)
    return out.getvalue()


@cache
def pixels(data: bytes) -> np.ndarray | None:
    """What Pillow makes of a file; None if it cannot."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


contents = st.one_of(
    st.builds(image, st.sampled_from(KINDS), st.integers(0, 5)),
    st.builds(image, st.sampled_from(KINDS), st.integers(0, 5)),
    st.sampled_from(list(BAD.values())),
)
captions = st.sampled_from(CAPTIONS)


class Read:
    """A planned input, read and prepared: the good rows by key, and why the others ended."""

    def __init__(self, path: Path, **asked: Any) -> None:
        self.plan: InputPlan = plan_sources(InputRequest((str(path),), **asked), 100)
        self.rows: list[tuple[str, str | None, np.ndarray]] = []
        self.ended: Counter[str] = Counter()
        self.read = 0
        slices = [piece.slice for piece in self.plan.pieces]
        fetch = rejecting(partial(fetch_image, max_bytes=1 << 20), {"file"})
        decode = partial(decode_image, options=ImageOptions(size=SIDE, resize="none"))
        with ThreadPoolExecutor(1) as decoding, ThreadPoolExecutor(1) as fetching:
            pools = Pools(Pool(decoding), Pool(fetching))
            prepare = PrepareImages(decode, self.plan.schema, fetch, pools, require_caption=False)
            for batch in read_slices(slices, self.plan.schema):
                prepared = prepare(batch, self.read)()
                self.read += prepared.rows_read
                names = (prepared.columns.column(name).to_pylist() for name in ("key", "caption"))
                self.rows += zip(*names, prepared.arrays, strict=True)
                for refusal in prepared.refusals:
                    cause = refusal.cause
                    self.ended[cause.code if isinstance(cause, RowRejected) else cause.reason] += 1
                    assert len(str(cause)) < 1000
        assert self.read == len(self.rows) + self.ended.total()

    def check(self, expected: list[tuple[bytes, str | None]]) -> None:
        """The good rows, in any order, have these images and captions."""
        found = Counter((array.tobytes(), caption) for _, caption, array in self.rows)
        right: Counter[tuple[bytes, str | None]] = Counter()
        for data, caption in expected:
            array = pixels(data)
            assert array is not None
            right[array.tobytes(), caption] += 1
        assert found == right


def is_good(data: bytes) -> bool:
    return pixels(data) is not None


def or_null(caption: str | None) -> str | None:
    return caption if caption and caption.strip() else None


@st.composite
def folders(draw: Any) -> dict[str, Any]:
    """Names below a folder: images with or without texts, and what is none; a tuple is a symbolic link, None a FIFO."""
    files: dict[str, Any] = {"always.jpg": image("JPEG", 0)}
    for number in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(["", "_", "sub/", "sub/_", "a.b "])) + f"{number}"
        ending = draw(st.sampled_from(ENDINGS))
        files[name + ending] = draw(contents)
        text = draw(st.sampled_from(["", ".txt", ".TXT", ".caption", f"{ending}.txt"]))
        if text:
            files[name + text] = draw(captions).encode()
    others = st.lists(st.sampled_from(["notes.xmp", "b.heic", "Thumbs.db", ".hidden", "c"]))
    for number, name in enumerate(draw(others)):
        files[f"other{number}/{name}"] = b"other"
    if draw(st.booleans()):
        files["linked.jpg"] = ("always.jpg",)
    if draw(st.booleans()):
        files["broken.png"] = ("nowhere.png",)
    if draw(st.booleans()):
        files["fifo.jpg"] = None
    return files


@QUICK
@given(folders())
def test_every_file_of_a_folder_is_a_row_a_text_of_one_or_passed_over(files: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                os.mkfifo(path)
            elif isinstance(content, tuple):
                path.symlink_to(content[0])
            else:
                path.write_bytes(content)
        done = Read(Path(folder))
        passed = done.plan.passed
        assert len(done.plan.inputs.files) == done.read
        read = {os.path.relpath(found.uri, folder) for found in done.plan.inputs.files}
        left = {os.path.relpath(uri, folder) for uris in passed.names.values() for uri in uris}
        assert passed.counts.total() == len(left)
        assert not read & left
        texts = set(files) - read - left
        assert all(TEXT.sub("", name) in {*read, *(os.path.splitext(other)[0] for other in read)} for name in texts)
        assert len(files) == done.read + len(texts) + len(left)
        contents_of = [files.get(content[0]) if isinstance(content, tuple) else content for content in files.values()]
        known = [data for data in contents_of if isinstance(data, bytes)]
        found = Counter(array.tobytes() for _, _, array in done.rows)
        assert found == Counter(array.tobytes() for array in map(pixels, known) if array is not None)
        assert sum(caption is not None for _, caption, _ in done.rows) <= len(texts)


@st.composite
def tars(draw: Any) -> list[dict[str, Any]]:
    """Samples by the endings of their members; a tuple is a link to the image of the sample of that number."""
    samples: list[dict[str, Any]] = [{"jpg": image("JPEG", 0), "txt": b"first"}]
    for number in range(1, draw(st.integers(1, 6))):
        sample: dict[str, Any] = {}
        shape = draw(st.sampled_from(["image", "image", "image", "link", "symlink", "none"]))
        if shape == "image":
            sample[draw(st.sampled_from(["jpg", "JPG", "png", "webp"]))] = draw(contents)
        elif shape != "none":
            sample["jpg"] = (draw(st.integers(0, number - 1)), shape)
        if shape == "none" or draw(st.booleans()):
            sample["txt"] = draw(captions).encode()
        if draw(st.booleans()):
            sample["json"] = json.dumps({"n": draw(st.sampled_from([None, 1]))}).encode()
        if draw(st.booleans()):
            sample["cls"] = b"1"
        samples.append(sample)
    return samples


def image_of(samples: list[dict[str, Any]], number: int) -> bytes | None:
    for ending, content in samples[number].items():
        if ending.lower() in ("jpg", "png", "webp"):
            return image_of(samples, content[0]) if isinstance(content, tuple) else content
    return None


@QUICK
@given(tars(), st.sampled_from(["tar", "tar.gz", "joined"]), st.sampled_from(FORMS))
def test_every_sample_of_a_tar_is_a_row(samples: list[dict[str, Any]], kind: str, form: int) -> None:
    names: dict[int, str] = {}
    with TemporaryDirectory() as folder:
        packed = kind == "tar.gz"
        path = Path(folder, "a.tar.gz" if packed else "a.tar")
        with tarfile.open(path, "w:gz" if packed else "w", format=form) as tar:
            for number, sample in enumerate(samples):
                for ending, content in sample.items():
                    info = tarfile.TarInfo(f"d/s{number:03d}.{ending}")
                    if isinstance(content, tuple):
                        if content[0] not in names:
                            continue
                        hard = content[1] == "link"
                        info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
                        info.linkname = names[content[0]].removeprefix("" if hard else "d/")
                        tar.addfile(info)
                    else:
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
                    if ending.lower() in ("jpg", "png", "webp"):
                        names[number] = info.name
        there = [number for number, sample in enumerate(samples) if number in names or set(sample) - {"jpg"}]
        if kind == "joined":
            path.write_bytes(path.read_bytes() + _tar_of_one(form))
        done = Read(path)
        assert done.read == len(there) + (kind == "joined")
        expected = [(image("PNG", 5), "joined")] if kind == "joined" else []
        for number in there:
            data = image_of(samples, number) if number in names else None
            if data is not None and is_good(data):
                expected.append((data, or_null(samples[number].get("txt", b"").decode())))
        done.check(expected)


def _tar_of_one(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in (("z.png", image("PNG", 5)), ("z.txt", b"joined")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@st.composite
def tables(draw: Any) -> list[tuple[bytes, str, str | None]]:
    """Images, how the cell gives each, and captions."""
    ways = ("name", "path", "uri", "base64", "data", "gone", "null", "fifo")
    rows = st.tuples(contents, st.sampled_from(ways), st.sampled_from([*CAPTIONS, None]))
    return [(image("JPEG", 0), "name", "first"), *draw(st.lists(rows, max_size=8))]


@QUICK
@given(tables(), st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_every_row_of_a_table_has_an_end(rows: list[tuple[bytes, str, str | None]], ending: str) -> None:
    if ending == "tsv":
        rows = [(data, way, caption and caption.replace("\n", " ").replace('"', "'")) for data, way, caption in rows]
    with TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/fifo.jpg")
        cells = [_cell(Path(folder), number, data, way) for number, (data, way, _) in enumerate(rows)]
        texts = [caption for _, _, caption in rows]
        path = Path(folder, f"t.{ending}")
        if ending == "parquet":
            pq.write_table(pa.table({"image": cells, "caption": pa.array(texts, pa.string())}), path)
        elif ending == "jsonl":
            lines = ({"image": cell, "caption": text} for cell, text in zip(cells, texts, strict=True))
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            with path.open("w", newline="") as file:
                writer = csv.writer(file, "excel" if ending == "csv" else "excel-tab")
                writer.writerow(["image", "caption"])
                writer.writerows((cell or "", text or "") for cell, text in zip(cells, texts, strict=True))
        done = Read(path)
        assert done.read == len(rows)
        good = [(data, or_null(caption)) for data, way, caption in rows if way not in ("gone", "null", "fifo")]
        done.check([(data, caption) for data, caption in good if is_good(data)])


def _cell(folder: Path, number: int, data: bytes, way: str) -> str | None:
    """Writes an image, if the cell is to name it; returns the cell."""
    path = folder / f"im {number} é.jpg"
    if way in ("name", "path", "uri"):
        path.write_bytes(data)
        return {"name": path.name, "path": str(path), "uri": path.as_uri()}[way]
    if way in ("base64", "data"):
        text = base64.b64encode(data).decode()
        return f"data:image/jpeg;base64,{text}" if way == "data" else text
    return {"gone": "gone.jpg", "null": None, "fifo": "fifo.jpg"}[way]

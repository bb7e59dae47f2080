"""Random small folders, tars and tables as people have them, for property tests: each says what is in it.

`Made` says how many files and rows there are, and which rows are good: their images as Pillow reads them, and captions.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

SIDE = 8
SMALLEST = 5  # of sides: smaller images are to be filtered
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NUMBERS = 6
ENDINGS = (".jpg", ".JPG", ".jpeg", ".jfif", ".jpe", ".jpg_large", ".png", ".webp", ".gif", ".bmp", ".tiff", "")
TEXTS = ("txt", "*.txt", "TXT", "caption", "*.caption")  # beside an image, the preferred one first
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
BLOCK = 512


@cache
def image(kind: str, number: int, side: int = SIDE) -> bytes:
    y, x = np.mgrid[0:side, 0:side]
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


def is_good(data: bytes) -> bool:
    """Whether the row of a file is to be written."""
    array = pixels(data)
    return array is not None and min(array.shape[:2]) >= SMALLEST


def or_null(caption: str | None) -> str | None:
    return caption if caption and caption.strip() else None


good_images = st.builds(image, st.sampled_from(KINDS), st.integers(0, NUMBERS - 1))
contents = st.one_of(
    good_images,
    good_images,
    st.builds(image, st.sampled_from(KINDS), st.just(0), st.just(SMALLEST - 1)),
    st.sampled_from(list(BAD.values())),
)
captions = st.sampled_from(CAPTIONS)


@dataclass
class Made:
    """`path` is the input. `rows` are all that are to be read, None if that is not known; `found` those whose images
    are found, good or not: image, caption and further `columns`. Of folders of images, `files` are the files in it,
    `texts` those that may describe others, and `named` the images that the rows of a table of the folder name."""

    path: Path
    rows: int | None
    found: list[tuple[bytes, str | None, tuple[Any, ...]]]
    files: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    columns: tuple[str, ...] = ()

    @property
    def good(self) -> list[tuple[bytes, str | None, tuple[Any, ...]]]:
        """The rows that are to be written."""
        return [row for row in self.found if is_good(row[0])]

    @property
    def filtered(self) -> int:
        """How many images are smaller than `SMALLEST`."""
        return sum(pixels(data) is not None and not is_good(data) for data, _, _ in self.found)

    @property
    def images(self) -> Counter[tuple[bytes, str | None]]:
        """Pixels and captions of the good rows."""
        found: Counter[tuple[bytes, str | None]] = Counter()
        for data, caption, _ in self.good:
            array = pixels(data)
            assert array is not None
            found[array.tobytes(), caption] += 1
        return found


@st.composite
def folders(draw: Any) -> dict[str, Any]:
    """`files` are names below a folder: images with or without texts, and what is none; a tuple is a symbolic link,
    None a FIFO. `metadata` is the ending of a table that names some images with captions, `named`."""
    files: dict[str, Any] = {"always.jpg": image("JPEG", 0)}
    texts: dict[str, list[str]] = {}
    for number in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(["", "_", "sub/", "sub/_", "a.b "])) + f"{number}"
        ending = draw(st.sampled_from(ENDINGS))
        files[name + ending] = draw(contents)
        for spelling in draw(st.lists(st.sampled_from(TEXTS), max_size=2, unique=True)):
            beside = f"{name}{ending}.{spelling[2:]}" if spelling.startswith("*.") else f"{name}.{spelling}"
            if beside not in files:  # without an ending, both are one
                files[beside] = draw(captions).encode()
                texts.setdefault(name + ending, []).append(beside)
    images = [name for name in files if name not in [*chain(*texts.values())]]
    others = st.lists(st.sampled_from(["notes.xmp", "b.heic", "Thumbs.db", ".hidden", "c"]))
    for number, name in enumerate(draw(others)):
        files[f"other{number}/{name}"] = b"other"
    if draw(st.booleans()):
        files["linked.jpg"] = ("always.jpg",)
    if draw(st.booleans()):
        files["broken.png"] = ("nowhere.png",)
    if draw(st.booleans()):
        files["fifo.jpg"] = None
    metadata = draw(st.sampled_from([None, None, "csv", "jsonl", "parquet"]))
    rows = st.tuples(st.sampled_from([*images, "gone.jpg"]), captions)
    named = [("always.jpg", "named"), *draw(st.lists(rows, max_size=4))]
    return {"files": files, "texts": texts, "metadata": metadata, "named": named if metadata else []}


def write_folder(folder: Path, drawn: dict[str, Any]) -> Made:
    files, texts = drawn["files"], drawn["texts"]
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            os.mkfifo(path)
        elif isinstance(content, tuple):
            path.symlink_to(content[0])
        else:
            path.write_bytes(content)
    names = [*files]
    if drawn["metadata"]:
        table = f"metadata.{drawn['metadata']}"
        _write_table(
            folder / table, {"file_name": [n for n, _ in drawn["named"]], "text": [c for _, c in drawn["named"]]}
        )
        names.append(table)
    described = [name for name, _ in drawn["named"]]
    found = [(files[name], or_null(text), ()) for name, text in drawn["named"] if name in files]
    beside = [*chain(*texts.values())]
    for name, content in files.items():
        data = files.get(content[0]) if isinstance(content, tuple) else content
        if name not in described and name not in beside and isinstance(data, bytes):
            said = [one for spelling in TEXTS for one in texts.get(name, ()) if _spelling(name, one) == spelling]
            found.append((data, or_null(files[said[0]].decode()) if said else None, ()))
    return Made(folder, None, found, names, [*beside, *names[len(files) :]], described)


def _spelling(image: str, text: str) -> str:
    ending = text.rpartition(".")[2]
    return f"*.{ending}" if text == f"{image}.{ending}" and os.path.splitext(image)[1] else ending


@st.composite
def tars(draw: Any) -> dict[str, Any]:
    """Samples by the endings of their members; a tuple is a link to the image of the sample of that number, and says of
    which kind. A list holds a file that is packed with its holes."""
    samples: list[dict[str, Any]] = [{"jpg": image("JPEG", 0), "txt": b"first"}]
    for number in range(1, draw(st.integers(1, 6))):
        sample: dict[str, Any] = {}
        shape = draw(st.sampled_from(["image", "image", "image", "sparse", "link", "symlink", "none"]))
        if shape == "image":
            sample[draw(st.sampled_from(["jpg", "JPG", "png", "webp"]))] = draw(contents)
        elif shape == "sparse":
            sample["bmp"] = [with_holes(draw(st.integers(0, NUMBERS - 1)), draw(st.integers(0, 5)))]
        elif shape != "none":
            sample["jpg"] = (draw(st.integers(0, number - 1)), shape)
        if shape == "none" or draw(st.booleans()):
            sample["txt"] = draw(captions).encode()
        if draw(st.booleans()):
            sample["json"] = json.dumps({"n": draw(st.sampled_from([None, 1]))}).encode()
        if draw(st.booleans()):
            sample["cls"] = b"1"
        samples.append(sample)
    kind, form = draw(st.sampled_from(["tar", "tar.gz", "joined"])), draw(st.sampled_from(FORMS))
    return {"samples": samples, "kind": kind, "form": form}


def with_holes(number: int, blocks: int) -> bytes:
    """A BMP with zeros before and behind its pixels."""
    data = image("BMP", number)
    start = int.from_bytes(data[10:14], "little")
    moved = BLOCK * blocks + start
    return data[:10] + moved.to_bytes(4, "little") + data[14:start] + bytes(moved - start) + data[start:] + bytes(1500)


def sparse_member(name: str, data: bytes, form: int) -> tuple[tarfile.TarInfo, bytes]:
    """The header of a member with holes, in one of the forms of GNU tar, and what follows it."""
    blocks = [at for at in range(0, len(data), BLOCK) if data[at : at + BLOCK].strip(b"\0")]
    parts = [(at, data[at : at + BLOCK]) for at in blocks]
    packed = b"".join(part for _, part in parts)
    info = tarfile.TarInfo(name)
    spans = [number for at, part in parts for number in (at, len(part))] + [len(data), 0]
    if form == tarfile.PAX_FORMAT:  # 1.0
        table = "".join(f"{number}\n" for number in (len(spans) // 2, *spans)).encode()
        table += bytes(-len(table) % BLOCK)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name}
        info.pax_headers["GNU.sparse.realsize"] = str(len(data))
        packed = table + packed
    else:  # 0.1
        info.pax_headers = {"GNU.sparse.size": str(len(data)), "GNU.sparse.numblocks": str(len(spans) // 2)}
        info.pax_headers["GNU.sparse.map"] = ",".join(map(str, spans))
    info.size = len(packed)
    return info, packed


def gnu_sparse_member(name: str, data: bytes) -> bytes:
    """A member with holes in the form of GNU tar that has no PAX headers, whole."""
    parts = [(at, data[at : at + BLOCK]) for at in range(0, len(data), BLOCK) if data[at : at + BLOCK].strip(b"\0")]
    spans = [number for at, part in parts for number in (at, len(part))] + [len(data), 0]
    packed = b"".join(part for _, part in parts)
    info = tarfile.TarInfo(name)
    info.size, info.type = len(packed), tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:482] = b"".join(b"%011o\0" % number for number in spans[:8]).ljust(96, b"\0")
    header[482], header[483:495] = len(spans) > 8, b"%011o\0" % len(data)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    more = b""
    for start in range(8, len(spans), 42):
        block = b"".join(b"%011o\0" % number for number in spans[start : start + 42]).ljust(504, b"\0")
        more += (block + bytes([len(spans) > start + 42])).ljust(BLOCK, b"\0")
    return bytes(header) + more + packed + bytes(-len(packed) % BLOCK)


def write_tar(folder: Path, drawn: dict[str, Any]) -> Made:
    samples, kind, form = drawn["samples"], drawn["kind"], drawn["form"]
    names: dict[int, str] = {}
    packed = kind == "tar.gz"
    path = folder / ("a.tar.gz" if packed else "a.tar")
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
                elif isinstance(content, list):
                    _add_sparse(tar, info.name, content[0], form)
                else:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                if ending.lower() in ("jpg", "png", "webp", "bmp"):
                    names[number] = info.name
    there = [number for number, sample in enumerate(samples) if number in names or set(sample) - {"jpg"}]
    found: list[tuple[bytes, str | None, tuple[Any, ...]]] = []
    if kind == "joined":
        path.write_bytes(path.read_bytes() + _tar_of_one(form))
        found.append((image("PNG", 5), "joined", ()))
    for number in there:
        data = _image_of(samples, number) if number in names else None
        if data is not None:
            found.append((data, or_null(samples[number].get("txt", b"").decode()), ()))
    return Made(path, len(there) + (kind == "joined"), found)


def _add_sparse(tar: tarfile.TarFile, name: str, data: bytes, form: int) -> None:
    if form == tarfile.GNU_FORMAT:
        member = gnu_sparse_member(name, data)
        assert tar.fileobj is not None
        tar.fileobj.write(member)
        tar.offset += len(member)
        return
    info, packed = sparse_member(name, data, form)
    tar.format = tarfile.PAX_FORMAT
    tar.addfile(info, io.BytesIO(packed))
    tar.format = form


def _image_of(samples: list[dict[str, Any]], number: int) -> bytes | None:
    for ending, content in samples[number].items():
        if ending.lower() in ("jpg", "png", "webp", "bmp"):
            found = content[0] if isinstance(content, list) else content
            return _image_of(samples, found[0]) if isinstance(found, tuple) else found
    return None


def _tar_of_one(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in (("z.png", image("PNG", 5)), ("z.txt", b"joined")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    """Images, how the cell gives each, and captions; in one table, or in two in folders that give columns."""
    ways = ("name", "path", "uri", "base64", "data", "gone", "null", "fifo")
    rows = st.tuples(contents, st.sampled_from(ways), st.sampled_from([*CAPTIONS, None]))
    parts = [[(image("JPEG", 0), "name", "first"), *draw(st.lists(rows, max_size=6))]]
    if draw(st.booleans()):
        parts.append([(image("PNG", 1), "data", "second"), *draw(st.lists(rows, max_size=3))])
    return {"parts": parts, "ending": draw(st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))}


def write_tables(folder: Path, drawn: dict[str, Any]) -> Made:
    parts, ending = drawn["parts"], drawn["ending"]
    hive = [("lang=en/n=1", ("en", 1)), ("lang=fr/n=__HIVE_DEFAULT_PARTITION__", ("fr", None))]
    home = folder / "tables" if len(parts) > 1 else folder
    found: list[tuple[bytes, str | None, tuple[Any, ...]]] = []
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "fifo.jpg")
    for number, (rows, (below, values)) in enumerate(zip(parts, hive, strict=False)):
        if ending == "tsv":
            rows = [(data, way, text and text.replace("\n", " ").replace('"', "'")) for data, way, text in rows]
        path = (home / below if len(parts) > 1 else home) / f"t.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [
            _cell(folder / "images", f"{number}-{row}", *rows[row][:2], len(parts) > 1) for row in range(len(rows))
        ]
        _write_table(path, {"image": cells, "caption": [text for _, _, text in rows]})
        extra = values if len(parts) > 1 else ()
        there = [row for row in rows if row[1] not in ("gone", "null", "fifo")]
        found += [(data, or_null(text), extra) for data, _, text in there]
    where = home if len(parts) > 1 else home / f"t.{ending}"
    return Made(where, sum(map(len, parts)), found, columns=("lang", "n") if len(parts) > 1 else ())


def _write_table(path: Path, columns: dict[str, list[str | None]]) -> None:
    ending = path.suffix[1:]
    if ending == "parquet":
        pq.write_table(pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}), path)
        return
    rows = list(zip(*columns.values(), strict=True))
    if ending == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
        return
    with path.open("w", newline="") as file:
        writer = csv.writer(file, "excel" if ending == "csv" else "excel-tab")
        writer.writerow(columns)
        writer.writerows([cell or "" for cell in row] for row in rows)


def _cell(images: Path, name: str, data: bytes, way: str, far: bool) -> str | None:
    """Writes an image, if the cell is to name it; returns the cell. `far`: no relative path leads there."""
    path = images / f"im {name} é.jpg"
    if way in ("name", "path", "uri"):
        path.write_bytes(data)
        return {"name": str(path) if far else f"images/{path.name}", "path": str(path), "uri": path.as_uri()}[way]
    if way in ("base64", "data"):
        text = base64.b64encode(data).decode()
        return f"data:image/jpeg;base64,{text}" if way == "data" else text
    return {"gone": "gone.jpg", "null": None, "fifo": str(images / "fifo.jpg")}[way]

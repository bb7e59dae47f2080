"""Small inputs of every kind that vqbeam reads, made from seeds: the same bytes each time."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.support.images import encoded, png_by_hand
from tests.support.make_inputs import HTML, Members, table, tar_of
from tests.support.make_inputs import folder as put

ROWS = 5  # of each file of `table/`
WORDS = ("a red apple", "a blue rocket", "a ghost on a black background", "a green tree", "a yellow star")


def image_of(number: int, width: int = 48, height: int = 40) -> Image.Image:
    """A gradient with two blocks and some noise, different for each number."""
    random = np.random.default_rng(number)
    across = np.linspace(0, 1, width)[None, :, None] * random.uniform(0, 200, 3)
    down = np.linspace(0, 1, height)[:, None, None] * random.uniform(0, 50, 3)
    pixels = across + down + random.normal(0, 4, (height, width, 3))
    pixels[height // 8 : height // 2, width // 8 : width // 2] = random.uniform(0, 255, 3)
    pixels[height // 2 : 3 * height // 4, width // 2 :] = random.uniform(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def png(number: int) -> bytes:
    return encoded(image_of(number), "PNG")


def jpeg(number: int, width: int = 48, height: int = 40) -> bytes:
    return encoded(image_of(number, width, height), "JPEG", quality=90)


def caption(number: int) -> str:
    return f"{WORDS[number % len(WORDS)]} {number}"


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def delimited(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def samples(numbers: Iterable[int], **extra: Any) -> Members:
    """Members of a tar: an image, a text and a json for each number."""
    members: Members = []
    for number in numbers:
        data = [jpeg, png][number % 2](number)
        members.append((f"s{number:03d}.{['jpg', 'png'][number % 2]}", data))
        members.append((f"s{number:03d}.txt", caption(number)))
        members.append((f"s{number:03d}.json", json.dumps({"n": number, "score": number / 4, **extra})))
    return members


def image_table(first: int, rows: int = ROWS, **columns: Any) -> bytes:
    """Keys, images, captions, and columns of many types, in row groups of two."""
    numbers = list(range(first, first + rows))
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    own: dict[str, Any] = {
        "key": [f"k{number}" for number in numbers],
        "image": pa.array([png(number) for number in numbers], pa.binary()),
        "caption": pa.array([caption(number) for number in numbers], pa.string()),
        "n": pa.array(numbers, pa.int64()),
        "score": [number / 8 for number in numbers],
        "tags": [["a", "b"][: number % 3] for number in numbers],
        "about": [{"made_by": "seed", "sizes": [number, 2]} for number in numbers],
        "made": [day + datetime.timedelta(hours=number) for number in numbers],
        "kind": pa.array([f"kind {number % 2}" for number in numbers]).dictionary_encode(),
    }
    return table(own | columns, row_group_size=2)


def write_inputs(folder: Path, sample: Path) -> None:
    """Writes each kind of input to its own folder; `sample` is that of the repository."""
    shutil.copytree(sample, folder / "sample")
    for write in (_tables, _tars, _downloads, _folders, _lists, _bad_images, _bad_tables, _tokens, _prompts):
        write(folder)


def _tables(folder: Path) -> None:
    for number in range(4):
        put(folder, {f"table/{number}.parquet": image_table(number * ROWS)})
    spoilt = [png(21), None, b"no picture", b"", png(25)]
    put(folder, {"spoilt/0.parquet": image_table(10), "spoilt/1.parquet": image_table(21, image=spoilt)})
    images = [png(number) for number in range(40, 46)]
    structs = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)]
    structs[2] = {"bytes": None, "path": "beside/a.png"}
    structs[3] = {"bytes": None, "path": "beside/gone.png"}
    numbers = list(range(6))
    put(
        folder,
        {
            "hf/train-00000-of-00001.parquet": table({"image": structs, "text": (*WORDS, "six"), "label": numbers}),
            "hf/beside/a.png": png(47),
            "two_images.parquet": table({"jpg": images, "image": images[::-1], "id": numbers, "title": ["t"] * 6}),
            "listed.parquet": table(
                {
                    "id": numbers,
                    "img": pa.array(images, pa.large_binary()),
                    "captions": [["one", "two"], [], None, [""], ["", "five"], ["six"]],
                    "text": ["t"] * 6,
                }
            ),
            "nested.parquet": table({"pictures": [[item] for item in structs], "caption": ["c"] * 6}),
            "paths.parquet": table({"image_path": ["hf/beside/a.png", "nowhere.png", None], "caption": ["c"] * 3}),
        },
    )


def _tars(folder: Path) -> None:
    put(
        folder,
        {
            "tars/set-000.tar": tar_of(samples(range(60, 67))),
            "tars/set-001.tar": tar_of([*samples(range(67, 70), late="field"), ("only.txt", "no image")]),
            "packed/a.tar.gz": packed(tar_of(samples(range(70, 73)))),
            "packed/b.tgz": packed(tar_of([("in/a folder/x.webp", encoded(image_of(73), "WEBP")), *samples((74,))])),
        },
    )


def _downloads(folder: Path) -> None:
    """What img2dataset writes in its three layouts; the second row was not downloaded."""
    rows: list[dict[str, Any]] = []
    for number in range(4):
        well = number != 1
        rows.append(
            {
                "url": f"https://example.org/{number}.jpg",
                "caption": caption(number) if number != 2 else "",
                "key": f"{number:09d}",
                "status": "success" if well else "failed_to_download",
                "error_message": None if well else "HTTP Error 404: Not Found",
                "width": 48 if well else None,
                "height": 40 if well else None,
                "original_width": 1024 if well else None,
                "original_height": 800 if well else None,
                "sha256": "0" * 64 if well else None,
            }
        )
    here = folder / "downloads"
    all_rows = pa.Table.from_pylist(rows)
    described = table(dict(zip(all_rows.column_names, all_rows.columns, strict=True)))
    stats = json.dumps({"count": 4, "successes": 3, "failed_to_download": 1})
    members: Members = []
    for row in rows:
        if row["status"] == "success":
            members.append((f"{row['key']}.jpg", jpeg(int(row["key"]))))
            members.append((f"{row['key']}.txt", row["caption"]))
            members.append((f"{row['key']}.json", json.dumps(row)))
    images = pa.array([jpeg(number) if number != 1 else None for number in range(4)], pa.binary())
    whole = all_rows.append_column("jpg", images)
    for layout in ("files", "webdataset", "parquet"):
        put(here / layout, {"00000_stats.json": stats})
    put(here / "files", {"00000.parquet": described} | {f"00000/{name}": data for name, data in members})
    put(here / "webdataset", {"00000.parquet": described, "00000.tar": tar_of(members)})
    put(here / "parquet", {"00000.parquet": table(dict(zip(whole.column_names, whole.columns, strict=True)))})


def _folders(folder: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = image_of(80)
    clear = image_of(81).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    deep = Image.fromarray(np.linspace(0, 65535, 48 * 40).reshape(40, 48).astype(np.uint16))
    put(
        folder / "formats",
        {
            "a.jpg": encoded(plain, "JPEG", exif=turned),
            "a.txt": "turned by its EXIF\n",
            "b.jpg": encoded(plain, "JPEG", progressive=True, quality=60),
            "c.jpeg": encoded(plain.convert("CMYK"), "JPEG"),
            "d.jpg": encoded(plain.convert("L"), "JPEG"),
            "e.png": encoded(clear, "PNG"),
            "f.png": encoded(clear.convert("LA"), "PNG"),
            "g.png": encoded(plain.quantize(16), "PNG", transparency=3),
            "h.png": encoded(plain.convert("1"), "PNG"),
            "i.png": encoded(deep, "PNG"),
            "j.webp": encoded(plain, "WEBP", quality=70),
            "k.webp": encoded(clear, "WEBP", lossless=True),
            "l.gif": encoded(plain, "GIF", save_all=True, append_images=[image_of(82)]),
            "m.bmp": encoded(plain, "BMP"),
            "n.tif": encoded(plain, "TIFF", compression="tiff_lzw"),
            "o.tiff": encoded(clear, "TIFF"),
            "large/p.jpg": jpeg(83, 700, 500),
            "large/q.png": encoded(image_of(84, 300, 20), "PNG"),
            "large/r.png": encoded(image_of(85, 9, 9), "PNG"),
            "large/s.png": encoded(image_of(86, 64, 64), "PNG"),
        },
    )
    put(
        folder / "sidecars",
        {
            "a.jpg": jpeg(90),
            "a.txt": "from the text",
            "a.json": json.dumps({"caption": "from the json", "n": 1}),
            "b.jpg": jpeg(91),
            "b.json": json.dumps({"caption": "from the json", "n": 2}),
            "more/c.png": png(92),
            "more/d.png": png(93),
            "more/d.txt": "",
            "more/d.json": json.dumps({"n": None, "late": "field"}),
        },
    )
    named = [{"file_name": name, "text": f"text of {name}", "n": 7} for name in ("a.png", "more/b.png", "gone.png")]
    images = {"a.png": png(94), "more/b.png": png(95), "c.png": png(96)}
    put(folder / "described_jsonl", {**images, "metadata.jsonl": lines(named)})
    put(folder / "described_csv", {**images, "metadata.csv": delimited(named), "c.txt": "beside the image"})


def _lists(folder: Path) -> None:
    """Tables of paths and URIs, and the images that they name."""
    here = folder / "lists"
    images = [f"img/{number}.png" for number in range(4)]
    put(here, {name: png(100 + number) for number, name in enumerate(images)})
    named = [
        *images,
        f"{here}/img/0.png",
        f"file://{here}/img/1.png",
        "../../up.png",
        "gs://elsewhere/b.png",
        "img",
        "",
    ]
    rows = [{"key": f"u{n}", "file_name": name, "caption": caption(n), "n": n} for n, name in enumerate(named)]
    put(
        here,
        {
            "list.csv": delimited(rows) + "\n",
            "list.tsv": delimited(rows, "\t"),
            "list.jsonl": lines(rows),
            "list.csv.gz": packed(delimited(rows).encode()),
            "list.jsonl.gz": packed(lines(rows).encode()),
            "broken.csv": 'key,file_name,caption\na,img/0.png,x\nb,"img/1.png" oops,x\nc\nd,img/2.png,x,y\n',
            "broken.jsonl": lines(rows[:1]) + '{"key": "b", "file_name": \n[1, 2]\n' + lines([{"file_name": 5}]),
            "cut.csv.gz": packed(b"key,file_name\na,img/0.png\n" + b"b,img/1.png\n" * 3)[:-8],
        },
    )
    put(folder / "web", {"w.jpg": jpeg(110), "x.png": png(111)})


def write_web_list(folder: Path, url: str) -> None:
    """A table of images on a web server; one of them is missing."""
    rows = [{"url": f"{url}/{name}", "caption": name} for name in ("web/w.jpg", "web/gone.jpg", "web/x.png", "web")]
    put(folder, {"lists/web.csv": delimited(rows)})


def _bad_images(folder: Path) -> None:
    good = jpeg(120)
    put(
        folder / "bad_images",
        {
            "a.jpg": good,
            "a.txt": "the one with a caption",
            "b.jpg": good[: len(good) // 2],
            "c.jpg": b"",
            "d.jpg": HTML,
            "e.png": png_by_hand(60_000, 60_000, 8, 2, bytes(1000)),
            "f.jpg": good + bytes(5000),
            "g.jpg": png(121),
            "h.jpg": good,
            "h.txt": b"caf\xe9",
            "i.jpg": good,
            "i.txt": " \n",
            "j.jpg": good,
            "j.json": "{n: 1",
        },
    )
    whole = tar_of(samples(range(130, 134)))
    start = len(tar_of(samples(range(130, 132))).rstrip(b"\0"))
    start += -start % 512
    two_kinds = [*samples((136,)), ("t.jpg", good), ("t.json", '{"n": "text"}'), ("u.jpg", good), ("u.json", "{n:")]
    climbing = [("../../etc/passwd.jpg", good), ("same.jpg", good), ("same.jpg", good), (f"{'k' * 300}.png", png(137))]
    put(
        folder / "bad_tars",
        {
            "0.tar": tar_of(samples((138,))),
            "1.tar": whole[:start] + b"\xa5" * 512 + whole[start + 512 :],
            "2.tar": whole[: start + 512 + 700],
            "3.tar": HTML * 40,
            "4.tar": tar_of(two_kinds),
            "5.tar": tar_of(climbing),
            "6.tar.gz": packed(tar_of(samples(range(140, 143))))[:-2000],
        },
    )


def _bad_tables(folder: Path) -> None:
    whole = bytearray(image_table(150, 6, image=[jpeg(number) for number in range(6)]))
    chunk = pq.ParquetFile(io.BytesIO(bytes(whole))).metadata.row_group(1).column(1)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    whole[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    one = [png(160)]
    put(
        folder / "bad_tables",
        {
            "0.parquet": image_table(150, 2, n=pa.array([1, 2], pa.int8()), key=[None, ""]),
            "1.parquet": bytes(whole),
            "2.parquet": image_table(160)[:-20],
            "3.parquet": image_table(160, 1, n=["text"]),
            "4.parquet": table({"key": ["few"], "image": one, "caption": ["columns"]}),
            "5.parquet": image_table(160, 2, n=[3, 300]),
            "6.parquet": image_table(160, 2, extra=[1, 2], caption=pa.array([None, ""], pa.string())),
            "7.parquet": image_table(160, 0),
        },
    )
    put(
        folder / "refused",
        {
            "clash.parquet": table({"image": one, "caption": ["c"], "encoding": ["of text"]}),
            "no_image.parquet": table({"n": [1], "caption": ["c"]}),
            "twice.csv": "key,key\na,b\n",
            "empty.csv": "",
            "notes.doc": "hello",
            "mixed/a.jpg": jpeg(161),
            "mixed/x.tar": tar_of(samples((161,))),
            "noise.parquet": b"no parquet at all" * 100,
        },
    )


def _tokens(folder: Path) -> None:
    """Codes of other projects: 64 for each image, below 1,024, as the embedded model has."""
    random = np.random.default_rng(5)
    codes = [random.integers(0, 1024, 64).tolist() for _ in range(5)]
    small = [np.array([number % 900 for number in cell], "<i2").tobytes() for cell in codes]
    bad = [
        codes[0],
        codes[1][:-1],
        [],
        None,
        [None, *codes[2][1:]],
        [1024, *codes[3][1:]],
        [-1, *codes[3][1:]],
        codes[4],
    ]
    keys = ["same", "same", "../../up", "/etc/passwd", "ключ 键 " * 20]
    put(
        folder / "tokens",
        {
            "listed.parquet": table({"caption": WORDS, "encoding": pa.array(codes, pa.list_(pa.int64())), "key": keys}),
            "packed.parquet": table({"codes": [*small[:3], b"\1\2\3", None], "text": WORDS, "image": ["x"] * 5}),
            "fixed.parquet": table({"image_tokens": pa.array(codes, pa.list_(pa.uint16(), 64)), "other": codes}),
            "bad.parquet": table({"encoding": pa.array(bad, pa.list_(pa.int64())), "caption": ["c"] * len(bad)}),
        },
    )


def _prompts(folder: Path) -> None:
    texts = ["a red apple", "", "a rocket on a blue background", "  ", "ein Äpfel 🍎 #hashtag", "word " * 200]
    rows = [{"prompt": text, "seed": number, "note": f"n{number}"} for number, text in enumerate(texts)]
    options: dict[str, list[Any]] = {
        "key": [f"o{number}" for number in range(7)],
        "caption": [caption(number) for number in range(7)],
        "Seed": [None, 1, 1 << 40, 3, -1, 5, 6],
        "images": [1, 2, 3, None, 2, 0, 1],
        "guidance_scale": [None, 1.0, 4.5, 2.0, 2.0, 2.0, float("nan")],
        "temperature": ["", "0.5", "1", "2", "1", "1", "hot"],
        "top_k": [0, 5, None, 1, 1, 1, 1],
        "top_p": [None, 0.9, 1.0, 0.5, 1.0, 1.0, 1.0],
        "n": list(range(7)),
    }
    put(
        folder / "prompts",
        {
            "p.txt": "\n".join(texts[:5]) + "\n",
            "p.txt.gz": packed(("\n".join(texts) + "\n").encode()),
            "p.csv": delimited(rows),
            "p.tsv": delimited(rows, "\t"),
            "p.jsonl": lines([*rows, {"prompt": 7}, {"seed": 1}, {"prompt": "x" * 70_000}]) + '{"prompt": \n',
            "p.jsonl.gz": packed(lines(rows).encode()),
            "p.parquet": table({"text": texts, "id": list(range(6)), "images": [2] * 6}),
            "options.parquet": table(options),
            "plain/a.jsonl": lines({"prompt": caption(number), "key": f"p{number}"} for number in range(6)),
            "latin.txt": b"a\ncaf\xe9\nb\n",
            "wide.txt": "a\nb\n".encode("utf-16"),
        },
    )

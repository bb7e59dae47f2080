"""Kinds of bad input to `encode`, each with the rows that it must give: the table behind `test_bad_input.py`."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.images import encoded, png_by_hand, scene
from tests.support.make_inputs import GOOD, HTML, Build, Members, files, image_table, samples, tar_of

TWO_LONG_KEYS = ("k" * 5000, "ключ 键 🗝 " * 9)


@dataclass(frozen=True)
class Bad:
    """A rejected row: `uri` is the end of its URI, `message` a part of its message."""

    code: str
    key: str
    uri: str
    message: str


@dataclass(frozen=True)
class Case:
    """`build` writes into the input folder; `good` are the keys that are written, in order. `source`, below the folder,
    is the value of --input."""

    name: str
    build: Build
    good: tuple[str, ...]
    bad: tuple[Bad, ...] = ()
    flags: tuple[str, ...] = ()
    filtered: Mapping[str, int] = field(default_factory=dict)
    missing_captions: int = 0
    source: str = ""
    notice: str = ""


def beside(bad: bytes) -> Build:
    """Three images with captions; the one in the middle is `bad`."""
    texts = {f"{name}.txt": f"caption {name}" for name in "abc"}
    return files({"a.jpg": GOOD, "b.jpg": bad, "c.jpg": GOOD, **texts})


def bad_image(name: str, data: bytes, code: str, message: str, *flags: str) -> Case:
    """`data` between two good images."""
    return Case(name, beside(data), ("a", "c"), (Bad(code, "b", "/b.jpg", message),), flags)


def bad_tar(name: str, data: bytes, good: tuple[str, ...], message: str, suffix: str = ".tar") -> Case:
    """A tar with `good` samples before it breaks, and a good one."""
    bad = Bad("broken_archive", f"x-{len(good):09d}", f"x{suffix}", message)
    return Case(name, files({f"x{suffix}": data, "y.tar": tar_of(samples("e"))}), (*good, "e"), (bad,))


def bad_cells(name: str, *lines: tuple[str, str, str, str]) -> Case:
    """Lines of a csv between two good ones that name images in a folder beside it, with their code, key and message."""
    text = "\n".join(("key,file_name,caption", FIRST, *(line[0] for line in lines), LAST)) + "\n"
    build = files({"list.csv": text, "img/a.jpg": GOOD, "img/c.jpg": GOOD})
    bad = tuple(Bad(code, key, f"list.csv#{row}", message) for row, (_, code, key, message) in enumerate(lines, 1))
    return Case(name, build, ("a", "c"), bad, source="list.csv")


def tars(*members: Members) -> Build:
    return files({f"{name}.tar": tar_of(content) for name, content in zip("xy", members, strict=False)})


def tables(*contents: bytes) -> Build:
    return files({f"{name}.parquet": content for name, content in zip("xy", contents, strict=False)})


def broken_from_third_sample() -> bytes:
    """A tar of four samples with noise as the header of the third."""
    data = tar_of(samples("a", "b", "c", "d"))
    start = len(tar_of(samples("a", "b")).rstrip(b"\0"))
    start += -start % 512
    return data[:start] + b"\xa5" * 512 + data[start + 512 :]


def cut_inside_third_sample() -> bytes:
    data = tar_of(samples("a", "b", "c", "d"))
    start = len(tar_of(samples("a", "b")).rstrip(b"\0"))
    return data[: start + 512 + -start % 512 + len(GOOD) // 2]


def cut_before_second_caption() -> bytes:
    """A gzipped tar that ends where the image of its second sample does."""
    whole = tar_of([*samples("a"), ("b.jpg", GOOD)]).rstrip(b"\0")
    packer = zlib.compressobj(wbits=31)
    return packer.compress(whole + b"\0" * (-len(whole) % 512)) + packer.flush(zlib.Z_SYNC_FLUSH)


def corrupt_second_group() -> bytes:
    """Three row groups of two rows; the image column of the second is overwritten."""
    data = image_table([GOOD] * 6, number=list(range(6)))
    columns = pq.read_table(io.BytesIO(data))
    out = io.BytesIO()
    pq.write_table(columns, out, row_group_size=2, compression="zstd", use_dictionary=False)
    whole = bytearray(out.getvalue())
    chunk = pq.ParquetFile(io.BytesIO(bytes(whole))).metadata.row_group(1).column(1)
    start = chunk.data_page_offset
    whole[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    return bytes(whole)


BOMB = png_by_hand(60_000, 60_000, 8, 2, b"\0" * 1000)
PNG = encoded(scene(40, 24), "PNG")
FIRST, LAST = "a,img/a.jpg,good", "c,img/c.jpg,good"
LINES = (
    json.dumps({"key": "a", "file_name": "a.jpg", "caption": "good"}),
    '{"key": "b", "file_name": ',
    "[1, 2]",
    json.dumps({"key": "c", "file_name": "c.jpg", "caption": "good"}),
)

IMAGE_CASES = (
    bad_image("a truncated jpeg", GOOD[: len(GOOD) // 2], "broken_image", "JPEG"),
    bad_image("zero bytes", b"", "empty_image", "0 bytes"),
    bad_image("html named jpg", HTML, "not_an_image", "<!DOCTYPE html>"),
    bad_image("a decompression bomb", BOMB, "too_many_pixels", "60000 x 60000"),
    Case("a png named jpg", beside(PNG), ("a", "b", "c")),
    bad_image(
        "more bytes than allowed", GOOD + b"\0" * 5000, "image_too_large", "max_image_bytes", "--max_image_bytes=5000"
    ),
    Case(
        "another size without resizing",
        files({"a.png": encoded(scene(16, 16), "PNG"), "b.png": PNG}),
        ("a",),
        (Bad("wrong_size", "b", "/b.png", "40 x 24"),),
        flags=("--resize", "none"),
        missing_captions=1,
    ),
    Case(
        "an image smaller than asked for",
        beside(encoded(scene(8, 8), "PNG")),
        ("a", "c"),
        flags=("--min_image_size", "20"),
        filtered={"min_image_size": 1},
    ),
    Case("no caption", files({"a.jpg": GOOD, "a.txt": "one", "b.jpg": GOOD}), ("a", "b"), missing_captions=1),
    Case(
        "no caption although one is required",
        files({"a.jpg": GOOD, "a.txt": "one", "b.jpg": GOOD, "c.jpg": GOOD, "c.txt": " \n"}),
        ("a",),
        (
            Bad("missing_caption", "b", "/b.jpg", "require_caption"),
            Bad("missing_caption", "c", "/c.jpg", "require_caption"),
        ),
        flags=("--require_caption",),
    ),
    Case(
        "a caption in an unknown encoding",
        files({"a.jpg": GOOD, "a.txt": b"caf\xe9", "b.jpg": GOOD, "b.txt": "café"}),
        ("b",),
        (Bad("broken_record", "a", "/a.jpg", "UTF-8"),),
    ),
)

TAR_CASES = (
    bad_tar("a tar broken in the middle", broken_from_third_sample(), ("a", "b"), "sample 2"),
    bad_tar("a tar cut short", cut_inside_third_sample(), ("a", "b"), "ends inside c.jpg"),
    bad_tar("a gzipped tar cut short", cut_before_second_caption(), ("a",), "Compressed file ended", suffix=".tar.gz"),
    bad_tar("something else named tar", HTML * 40, (), "sample 0"),
    Case("duplicate keys in one tar", tars(samples("a", "a", "b")), ("a", "a", "b")),
    Case("the same key in two files", tars(samples("a"), samples("a")), ("a", "a")),
    Case(
        "a sample without an image",
        tars([*samples("a"), ("b.txt", "only text"), *samples("c")]),
        ("a", "c"),
        (Bad("missing_image", "b", "x.tar#b", "txt"),),
    ),
    Case(
        "a key that climbs out of its folder",
        tars([*samples("a"), *samples("../../etc/passwd")]),
        ("a", "../../etc/passwd"),
    ),
    Case("long keys and keys in every script", tars(samples(*TWO_LONG_KEYS)), TWO_LONG_KEYS),
    Case(
        "json that is none",
        tars([*samples("a"), ("a.json", '{"n": 1}'), *samples("b"), ("b.json", "{n: 1")]),
        ("a",),
        (Bad("broken_record", "b", "x.tar#b.jpg", "no valid json"),),
    ),
    Case(
        "json whose field has another type",
        tars([*samples("a"), ("a.json", '{"n": 1}')], [*samples("b"), ("b.json", '{"n": "x"}')]),
        ("a",),
        (Bad("schema_mismatch", "b", "y.tar#b.jpg", "int64"),),
    ),
)

PARQUET_CASES = (
    Case(
        "null and empty cells",
        tables(image_table([GOOD, None, b"", GOOD])),
        ("r0", "r3"),
        (
            Bad("missing_image", "r1", "x.parquet#1", "null"),
            Bad("empty_image", "r2", "x.parquet#2", "0 bytes"),
        ),
    ),
    Case(
        "null keys and captions",
        tables(image_table([GOOD, GOOD], key=[None, "k"], caption=pa.array([None, ""]))),
        ("x-000000000", "k"),
        missing_captions=2,
    ),
    Case("a file without rows", tables(image_table([]), image_table([GOOD])), ("r0",)),
    Case(
        "a file cut short",
        tables(image_table([GOOD, GOOD]), image_table([GOOD])[:-20]),
        ("r0", "r1"),
        (Bad("broken_archive", "y", "y.parquet", "no readable Parquet"),),
    ),
    Case(
        "a page that cannot be read",
        tables(corrupt_second_group(), image_table([GOOD], number=[7])),
        ("r0", "r1", "r0"),
        tuple(Bad("broken_archive", f"x-00000000{n}", f"x.parquet#{n}", "from row 2 on") for n in range(2, 6)),
    ),
    Case(
        "a column of another type in the second file",
        tables(image_table([GOOD], n=[1]), image_table([GOOD], n=["one"])),
        ("r0",),
        (Bad("schema_mismatch", "r0", "y.parquet#0", "column n is string"),),
    ),
    Case(
        "a column that the second file lacks",
        tables(image_table([GOOD], n=[1]), image_table([GOOD])),
        ("r0",),
        (Bad("schema_mismatch", "r0", "y.parquet#0", "no column n"),),
    ),
    Case(
        "a column that only the second file has",
        tables(image_table([GOOD]), image_table([GOOD], extra=[1])),
        ("r0", "r0"),
        notice="column extra",
    ),
    Case(
        "a number that does not fit",
        tables(image_table([GOOD], n=pa.array([1], pa.int8())), image_table([GOOD, GOOD], n=[2, 300])),
        ("r0", "r0"),
        (Bad("schema_mismatch", "r1", "y.parquet#1", "n is 300"),),
    ),
    Case(
        "rows that img2dataset could not download",
        tables(
            image_table(
                [GOOD, None],
                url=["http://a/1", "http://a/2"],
                status=["success", "failed_to_download"],
                error_message=[None, "HTTP Error 404: Not Found"],
            )
        ),
        ("r0",),
        filtered={"status": 1},
    ),
)

TABLE_CASES = (
    bad_cells("a scheme that is not allowed", ("b,gs://elsewhere/b.jpg,x", "uri_not_allowed", "b", "uri_schemes")),
    bad_cells("a path that leaves the dataset", ("b,../../etc/passwd,x", "uri_not_allowed", "b", "../../etc/passwd")),
    bad_cells(
        "an image that is not there",
        ("b,img/b.jpg,x", "image_not_found", "b", "img/b.jpg"),
        ("d,img,x", "image_not_found", "d", "img"),
        ("e,img/a.jpg/x.jpg,x", "image_not_found", "e", "img/a.jpg/x.jpg"),
    ),
    bad_cells(
        "names that no file can have",
        (f"b,{'n' * 5000},x", "image_not_found", "b", "nnn"),
        ("d,img/\0.jpg,x", "image_not_found", "d", ""),
    ),
    bad_cells("a cell without a path", ("b,,x", "missing_image", "b", "file_name")),
    bad_cells("broken quoting in csv", ('b,"img/b.jpg" oops,x', "broken_record", "list-000000001", "cannot be parsed")),
    bad_cells(
        "too few and too many cells in csv",
        ("b", "broken_record", "list-000000001", "1 cells"),
        ("d,img/d.jpg,x,y", "broken_record", "list-000000002", "4 cells"),
    ),
    Case(
        "a broken line in jsonl",
        files({"list.jsonl": "\n".join(LINES), "a.jpg": GOOD, "c.jpg": GOOD}),
        ("a", "c"),
        (
            Bad("broken_record", "list-000000001", "list.jsonl#1", "no valid json"),
            Bad("broken_record", "list-000000002", "list.jsonl#2", "not an object"),
        ),
        source="list.jsonl",
    ),
    Case(
        "a gzipped table cut short",
        files(
            {
                "list.csv.gz": gzip.compress(("key,file_name\na,a.jpg\n" + "b,a.jpg\n" * 3).encode())[:-8],
                "a.jpg": GOOD,
            }
        ),
        ("a", "b", "b", "b"),
        (Bad("broken_archive", "list-000000004", "list.csv.gz#4", "breaks off"),),
        source="list.csv.gz",
        missing_captions=4,
    ),
)

CASES = IMAGE_CASES + TAR_CASES + PARQUET_CASES + TABLE_CASES

"""Tars as people have them: sparse members, links, joined archives, labels, names with several dots."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded
from tests.support.make_inputs import Members, tar_of
from tests.support.read_inputs import column, errors, plan, read, read_plan
from tests.support.run_command import Outcome, encode
from transforms.inputs.formats import count_rows
from transforms.storage import GZIP_MAGIC

ENDS = ("rows_read", "rows_written", "rows_rejected")


def picture(number: int, size: int = 64) -> Image.Image:
    y, x = np.mgrid[0:size, 0:size]
    levels = np.stack([x * 255 // size, y * 255 // size, (x + y + 40 * number) % 256], -1)
    return Image.fromarray(levels.astype("uint8"))


def jpeg(number: int) -> bytes:
    return encoded(picture(number), "JPEG")


def gnu_tar(folder: Path, *words: str) -> None:
    subprocess.run(("tar", "--sort=name", *words), cwd=folder, check=True)


def ends(done: Outcome) -> list[int]:
    assert done.code in (0, 1), done.err
    done.check_nothing_lost()
    return [done.total(name) for name in ENDS]


def codes(done: Outcome) -> list[list[int]]:
    return [row["encoding"] for row in done.rows()]


def notices(done: Outcome) -> str:
    return "; ".join(done.by_reason("notices"))


@pytest.mark.parametrize(
    "form", ["--format=gnu", *(f"--format=posix --sparse-version={version}" for version in ("0.0", "0.1", "1.0"))]
)
def test_sparse_members_have_the_bytes_that_were_packed(tmp_path: Path, tiny_model: Path, form: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for number in range(3):
        image = picture(number, 256)
        if number < 2:
            image.paste((0, 0, 0), (0, 0, 256, 90))
            image.paste((0, 0, 0), (0, 150, 256, 256))
        data = encoded(image, "BMP")
        with open(folder / f"{number}.bmp", "wb") as file:
            for at in range(0, len(data), 4096):
                block = data[at : at + 4096]
                if block.strip(b"\0"):
                    file.write(block)
                else:
                    file.seek(len(block), os.SEEK_CUR)
            file.truncate(len(data))
    gnu_tar(tmp_path, *form.split(), "--hole-detection=raw", "-S", "-cf", "sparse.tar", "-C", "s", ".")
    gnu_tar(tmp_path, "-cf", "plain.tar", "-C", "s", ".")
    with tarfile.open(tmp_path / "sparse.tar") as tar:
        assert sum(member.issparse() for member in tar) >= 2
    sparse, plain = (encode(tmp_path / f"{name}.tar", tmp_path / name, tiny_model) for name in ("sparse", "plain"))
    assert ends(sparse) == ends(plain) == [3, 3, 0]
    assert codes(sparse) == codes(plain)
    assert [row["key"] for row in sparse.rows()] == [row["key"] for row in plain.rows()] == list("012")


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
def test_hard_links_have_the_bytes_of_their_members(tmp_path: Path, tiny_model: Path, packed: bool) -> None:
    folder = tmp_path / "l"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number:04d}.jpg").write_bytes(jpeg(number))
        (folder / f"{number:04d}.txt").write_text(f"caption {number}")
    links = ("0000.jpg", "0001.jpg"), ("0000.txt", "0003.txt"), ("0002.jpg", "0004.jpg"), ("0002.txt", "0004.txt")
    for old, new in links:
        (folder / new).unlink(missing_ok=True)
        os.link(folder / old, folder / new)
    name = "links.tar.gz" if packed else "links.tar"
    gnu_tar(tmp_path, "-czf" if packed else "-cf", name, "-C", "l", ".")
    assert ((tmp_path / name).read_bytes()[:2] == GZIP_MAGIC) == packed
    done = encode(tmp_path / name, tmp_path / "o", tiny_model)
    assert ends(done) == [5, 5, 0]
    assert [row["caption"] for row in done.rows()] == [f"caption {number}" for number in (0, 1, 2, 0, 2)]
    first, linked, other, _, again = codes(done)
    assert first == linked
    assert other == again != first
    cut = encode(tmp_path / name, tmp_path / "cut", tiny_model, "--rows_per_shard", 2, "--limit", 5)
    assert codes(cut) == codes(done)


def test_symbolic_links_lead_to_members_or_are_rejected(tmp_path: Path, tiny_model: Path) -> None:
    for folder in ("blobs", "snap"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        (tmp_path / f"blobs/b{number}").write_bytes(jpeg(number))
        (tmp_path / f"snap/{number:04d}.jpg").symlink_to(f"../blobs/b{number}")
    (tmp_path / "snap/0009.jpg").write_bytes(jpeg(9))
    gnu_tar(tmp_path, "-cf", "alone.tar", "snap")
    gnu_tar(tmp_path, "-cf", "together.tar", "snap", "blobs")
    alone = encode(tmp_path / "alone.tar", tmp_path / "alone", tiny_model)
    assert ends(alone) == [4, 1, 3]
    for number, row in enumerate(alone.rejected()):
        assert row["error"] == "missing_image"
        assert f"symbolic link to '../blobs/b{number}', which is no file in the tar" in row["message"]
    together = encode(tmp_path / "together.tar", tmp_path / "together", tiny_model)
    assert ends(together) == [4, 4, 0]
    assert codes(together)[3:] == codes(alone)
    assert len(set(map(tuple, codes(together)))) == 4


def test_joined_tars_are_read_to_their_end(tmp_path: Path, tiny_model: Path) -> None:
    tars = [tar_of([(f"{number}.jpg", jpeg(number)), (f"{number}.txt", f"caption {number}")]) for number in range(3)]
    (tmp_path / "joined.tar").write_bytes(b"".join(tars))
    done = encode(tmp_path / "joined.tar", tmp_path / "o", tiny_model)
    assert ends(done) == [3, 3, 0]
    assert [row["caption"] for row in done.rows()] == ["caption 0", "caption 1", "caption 2"]


def test_what_is_no_tar_behind_the_end_is_told(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("0.jpg", jpeg(0))]) + b"something else" * 100)
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    assert ends(done) == [2, 1, 1]
    assert done.rejected()[0]["error"] == "broken_archive"
    assert "behind the end of the tar" in done.rejected()[0]["message"]


def labelled() -> Members:
    array = io.BytesIO()
    np.save(array, np.arange(3))
    return [
        member
        for number in range(3)
        for member in (
            (f"s{number}.jpg", jpeg(number)),
            (f"s{number}.cls", str(number)),
            (f"s{number}.caption", f"c{number}"),
            (f"s{number}.npy", array.getvalue()),
        )
    ]


def test_members_that_belong_to_no_image_are_columns(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "cls.tar").write_bytes(tar_of([("README", b"x"), *labelled()]))
    done = encode(tmp_path / "cls.tar", tmp_path / "o", tiny_model, "--caption_column", "caption")
    assert ends(done) == [3, 3, 0]
    assert [(row["caption"], row["cls"]) for row in done.rows()] == [("c0", "0"), ("c1", "1"), ("c2", "2")]
    assert np.load(io.BytesIO(done.rows()[0]["npy"])).tolist() == [0, 1, 2]
    assert notices(done).startswith("members whose names have no ending")
    guessed = encode(tmp_path / "cls.tar", tmp_path / "guessed", tiny_model, "--columns", "cls", "--rename", "cls=n")
    assert [(row["caption"], row["n"]) for row in guessed.rows()] == [("c0", "0"), ("c1", "1"), ("c2", "2")]
    assert "npy" not in guessed.rows()[0]


def test_members_that_come_late_are_named(tmp_path: Path, tiny_model: Path) -> None:
    early = [(f"{number}.jpg", jpeg(0) + bytes(300_000)) for number in range(8)]
    (tmp_path / "a.tar").write_bytes(tar_of([*early, ("z.jpg", jpeg(0)), ("z.npy", b"x"), ("z.mask.png", b"x")]))
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    assert ends(done) == [9, 9, 0]
    assert "members npy pass through as no column" in notices(done)
    assert "members mask.png pass through as no column" in notices(done)


@pytest.mark.parametrize(
    ("members", "keys"),
    [
        ([("cat.1.jpg", 0), ("cat.2.jpg", 1), ("dog.jpg", 2)], ["cat.1", "cat.2", "dog"]),
        ([("img.0001.jpg", 0), ("img.0001.txt", "c")], ["img.0001"]),
        ([("d/IMG.A.jpg", 0), ("d/IMG.A.txt", "c"), ("d/IMG.B.jpg", 1)], ["d/IMG.A", "d/IMG.B"]),
        ([(f"img.{number:04d}.{end}", number) for number in range(70) for end in ("jpg", "txt")][:139], None),
    ],
    ids=["numbered", "sole", "folders", "many"],
)
def test_names_with_several_dots_are_an_image_each(
    tmp_path: Path, members: list[tuple[str, int | str]], keys: list[str] | None
) -> None:
    packed: Members = [(name, jpeg(int(value)) if name.endswith("jpg") else f"text {value}") for name, value in members]
    (tmp_path / "a.tar").write_bytes(tar_of(packed))
    wanted = keys or [f"img.{number:04d}" for number in range(70)]
    texts = sum(name.endswith("txt") for name, _ in members)
    for rows_per_shard in (1, 2, 40, 1000):
        planned = plan(tmp_path / "a.tar", rows_per_shard=rows_per_shard)
        rows = read_plan(planned, rows_per_shard)
        assert errors(rows) == [None] * len(wanted)
        assert column(rows, "key") == wanted
        assert sum(row["caption"] is not None for row in rows) == texts
        assert [row["image"] for row in rows] == [data for name, data in packed if name.endswith("jpg")]
        for piece in planned.pieces:
            part = piece.slice
            stop = len(wanted) if part.stop is None else min(part.stop, len(wanted))
            assert count_rows(part, 1000, planned.schema) == max(0, stop - part.start)


def test_numbered_images_are_counted_as_they_are_read(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("cat.1.jpg", jpeg(0)), ("cat.2.jpg", jpeg(1)), ("dog.jpg", jpeg(2))]))
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model, "--limit", 2)
    assert ends(done) == [2, 2, 0]
    assert [row["key"] for row in done.rows()] == ["cat.1", "cat.2"]


def test_samples_that_lie_apart_are_told_with_the_cure(tmp_path: Path, tiny_model: Path) -> None:
    members: Members = [("a.jpg", jpeg(0)), ("b.jpg", jpeg(1)), ("a.txt", "a"), ("b.txt", "b")]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    assert ends(done) == [4, 2, 2]
    for row in done.rejected():
        assert "side by side" in row["message"]
        assert "tar --sort=name" in row["message"]
        assert len(row["message"]) < 300


def test_blank_captions_are_null_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    texts = ["two\nlines", "  ", "\n", ""]
    members: Members = [m for i, text in enumerate(texts) for m in ((f"{i}.jpg", jpeg(i)), (f"{i}.txt", text))]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    assert [row["caption"] for row in done.rows()] == ["two\nlines", None, None, None]
    assert done.total("missing_captions") == 3


def json_samples(records: list[dict[str, object]]) -> Members:
    return [
        member
        for number, record in enumerate(records)
        for member in ((f"{number:04d}.jpg", b"x"), (f"{number:04d}.json", json.dumps(record)))
    ]


def test_a_field_that_is_null_at_first_keeps_its_numbers(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"late": None}] * 2000 + [{"late": 0.25}, {"late": 3}]
    (tmp_path / "a.tar").write_bytes(tar_of(json_samples(records)))
    assert column(read(tmp_path / "a.tar"), "pass:late") == [None] * 2000 + [0.25, 3.0]
    (tmp_path / "a.tar").write_bytes(tar_of(json_samples(records[:10])))
    (tmp_path / "b.tar").write_bytes(tar_of(json_samples(records[-2:])))
    assert column(read(tmp_path / "*.tar"), "pass:late") == [None] * 10 + [0.25, 3.0]


def test_a_fraction_among_integers_does_not_cost_the_image(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"n": 1}] * 2000 + [{"n": 2.0}, {"n": 0.5}]
    (tmp_path / "a.tar").write_bytes(tar_of(json_samples(records)))
    told: Counter[str] = Counter()
    rows = read_plan(plan(tmp_path / "a.tar"), notices=told)
    assert errors(rows) == [None] * 2002
    assert column(rows, "pass:n") == [1] * 2000 + [2, None]
    assert dict(told) == {"'n' is a number that does not fit int64, the planned type; null was written": 1}

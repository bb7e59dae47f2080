"""Whatever a tar holds: its slices give the rows of the whole, and as many as are counted."""

from __future__ import annotations

import gzip
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.make_inputs import tar_of
from tests.support.read_inputs import column, errors, plan, read_plan
from transforms.inputs.formats import count_rows, read_slices
from transforms.ledger.types import Slice

ENDINGS = ("jpg", "txt", "json", "cls", "png", "1.jpg", "2.jpg", "1.txt", "a.b.jpg", "in.jpg", "npy")
TEXTS = {"json": b'{"n": 1}', "txt": b"text", "1.txt": b"text"}


def random_tar(seed: int) -> bytes:
    """Members in any order and number, some of them links; perhaps joined, perhaps cut."""
    pick = random.Random(seed)
    data = b""
    names: list[str] = []
    for _ in range(pick.choice((1, 1, 2))):
        for _ in range(pick.randrange(30)):
            name = f"{pick.choice('abc')}{pick.randrange(4)}" + pick.choice(("", "", ".x"))
            ending = pick.choice(ENDINGS[: pick.choice((3, 5, len(ENDINGS)))])
            full = pick.choice((f"{name}.{ending}",) * 12 + ("README", ".hidden.jpg", "__meta__"))
            if names and pick.random() < 0.2:
                link = tarfile.TarInfo(full)
                link.type = pick.choice((tarfile.SYMTYPE, tarfile.LNKTYPE))
                link.linkname = pick.choice((*names, "nothing"))
                data += link.tobuf()
            else:
                data += tar_of([(full, TEXTS.get(ending, b"%d" % pick.randrange(1000)))])[:1024]
            names.append(full)
        data += bytes(1024 * pick.randrange(1, 4))
    if pick.random() < 0.2:
        data = data[: pick.randrange(len(data))]
    return data


@pytest.mark.parametrize("rule", [1, 2])
def test_slices_give_the_rows_of_the_whole_and_as_many_as_are_counted(tmp_path: Path, rule: int) -> None:
    for seed in range(30):
        path = tmp_path / f"{seed}.tar"
        path.write_bytes(random_tar(seed))
        planned = plan(path)
        planned = replace(planned, schema=replace(planned.schema, reading=rule))
        rows = read_plan(planned)
        source = planned.pieces[0].slice.source
        for size in (1, 3):
            cuts = [Slice(source, start, start + size) for start in range(0, len(rows), size)]
            cuts.append(Slice(source, len(cuts) * size, None))
            parts = [[row for batch in read_slices([cut], planned.schema) for row in batch.to_pylist()] for cut in cuts]
            assert [row for part in parts for row in part] == rows, seed
            assert [count_rows(cut, 100, planned.schema) for cut in cuts] == [len(part) for part in parts], seed


def test_a_gzipped_tar_has_the_rows_of_the_plain_one(tmp_path: Path) -> None:
    for seed in range(30):
        data = random_tar(seed)
        (tmp_path / "a.tar").write_bytes(data)
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data, 1))
        plain, packed = (read_plan(plan(tmp_path / name)) for name in ("a.tar", "a.tar.gz"))
        for name in ("key", "image", "caption"):
            assert column(plain, name) == column(packed, name), seed
        assert errors(plain) == errors(packed), seed


def test_images_with_several_dots_are_a_row_each_unless_that_is_ambiguous(tmp_path: Path) -> None:
    for seed in range(50):
        pick = random.Random(seed)
        names = [f"{name}.{number}" for name in "abcd" for number in range(pick.randrange(4))]
        members = [m for name in names for m in ((f"{name}.jpg", b"x"), (f"{name}.txt", name)) if pick.random() < 0.7]
        (tmp_path / "a.tar").write_bytes(tar_of(members))
        there = {name for name, _ in members}
        wanted: list[tuple[str, bool]] = []
        for group in "abcd":
            own = [name for name in names if name[0] == group and there & {f"{name}.jpg", f"{name}.txt"}]
            whole = [f"{name}.jpg" in there for name in own]
            paired = any({f"{name}.jpg", f"{name}.txt"} <= there for name in own)
            if own and (all(whole) or paired):
                wanted += zip(own, whole, strict=True)
            elif own:
                wanted.append((group, False))
        rows = read_plan(plan(tmp_path / "a.tar"))
        assert [(row["key"], row["error_code"] is None) for row in rows] == wanted
        assert all(row["caption"] == row["key"] for row in rows if row["error_code"] is None and row["caption"])

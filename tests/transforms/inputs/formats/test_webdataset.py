"""WebDataset tars: samples as the `webdataset` package writes them, and as others do."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import webdataset as wds

from tests.support.make_inputs import Members, tar_of
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms.errors import UsageError
from transforms.inputs.fetch import MAX_IMAGE_BYTES
from transforms.inputs.formats import count_rows, read_slices
from transforms.inputs.request import InputSchema


def test_reads_what_the_webdataset_package_writes(tmp_path: Path) -> None:
    with wds.ShardWriter(str(tmp_path / "%05d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            writer.write({"__key__": f"a/{number:03d}", "jpg": b"jpg%d" % number, "txt": f"caption {number}"})
    rows = read(tmp_path)
    assert column(rows, "key") == [f"a/{number:03d}" for number in range(10)]
    assert column(rows, "image") == [b"jpg%d" % number for number in range(10)]
    assert column(rows, "caption") == [f"caption {number}" for number in range(10)]
    assert rows[5]["uri"] == f"{tmp_path}/00001.tar#a/001.jpg".replace("001.jpg", "005.jpg")


def test_json_fields_pass_through_with_types_fixed_by_the_first_samples(tmp_path: Path) -> None:
    records = [
        {"n": 1, "score": 0.5, "ok": True, "tags": ["a"], "note": "x", "nested": {"a": 1}, "caption": "one"},
        {"n": None, "score": 2, "ok": None, "tags": None, "note": None, "nested": None, "caption": None},
    ]
    with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number, record in enumerate(records):
            writer.write({"__key__": str(number), "png": b"x", "json": json.dumps(record).encode()})
    rows = read(tmp_path / "a.tar")
    assert column(rows, "caption") == ["one", None]
    assert {name: rows[0][f"pass:{name}"] for name in ("n", "score", "ok", "tags", "note", "nested")} == {
        "n": 1, "score": 0.5, "ok": True, "tags": ["a"], "note": "x", "nested": '{"a": 1}',
    }  # fmt: skip
    assert rows[1]["pass:score"] == 2.0
    assert errors(rows) == [None, None]


def test_a_text_member_goes_before_the_caption_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tar_of([("1.jpg", b"x"), ("1.json", b'{"caption": "json"}'), ("1.txt", b"text\n")])
    )
    assert column(read(tmp_path / "a.tar"), "caption") == ["text"]


def test_several_captions_of_an_image_are_kept_as_a_list(tmp_path: Path) -> None:
    members = [("1.jpg", b"x"), ("1.json", b'{"captions": ["a", "b"]}'), ("2.jpg", b"x"), ("2.txt", b"c")]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    assert column(read(tmp_path / "a.tar"), "caption") == [["a", "b"], ["c"]]


def test_samples_of_one_name_are_all_kept(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"one"), ("a.jpg", b"2"), ("a.txt", b"two")]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    rows = read(tmp_path / "a.tar")
    assert [(row["key"], row["image"], row["caption"]) for row in rows] == [("a", b"1", "one"), ("a", b"2", "two")]


def test_members_that_are_no_samples_are_passed_over(tmp_path: Path) -> None:
    members = [("README", b"x"), ("__meta__", b"x"), ("./d/a.jpg", b"1"), ("./d/a.cls", b"7"), (".hidden", b"x")]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    assert column(read(tmp_path / "a.tar"), "key") == ["d/a"]


def test_another_member_can_be_named_as_the_image_and_as_the_caption(tmp_path: Path) -> None:
    members = [("1.input.jpg", b"in"), ("1.jpg", b"out"), ("1.prompt.txt", b"words")]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    rows = read(tmp_path / "a.tar", image_column="input.jpg", caption_column="prompt.txt")
    assert (rows[0]["image"], rows[0]["caption"]) == (b"in", "words")
    with pytest.raises(UsageError, match=r"no depth\.png files.*input\.jpg, jpg, prompt\.txt"):
        plan(tmp_path / "a.tar", image_column="depth.png")


def test_a_second_image_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("1.jpg", b"first"), ("1.png", b"second")]))
    notices: Counter[str] = Counter()
    rows = read_plan(plan(tmp_path / "a.tar"), notices=notices)
    assert column(rows, "image") == [b"first"]
    assert list(notices.values()) == [1]


def test_fields_that_the_first_samples_lack_are_counted(tmp_path: Path) -> None:
    early = [member for n in range(2000) for member in ((f"{n}.jpg", b"x"), (f"{n}.json", b'{"a": 1}'))]
    late = [("z.jpg", b"x"), ("z.json", b'{"a": 1, "new": 2}')]
    (tmp_path / "a.tar").write_bytes(tar_of(early + late))
    notices: Counter[str] = Counter()
    read_plan(plan(tmp_path / "a.tar"), notices=notices)
    assert dict(notices) == {"json field 'new', which the first samples have not, was left out": 1}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("1.txt", b"no image"), ("1.json", b"{}")], "missing_image"),
        ([("1.jpg", b"x"), ("1.json", b"{not json")], "broken_record"),
        ([("1.jpg", b"x"), ("1.json", b"[1]")], "broken_record"),
        ([("1.jpg", b"x"), ("1.json", b'{"a": "\\ud800"}')], "broken_record"),
        ([("1.jpg", b"x"), ("1.txt", b"\xff\xfe")], "broken_record"),
        ([("1.jpg", b"x" * 2000)], "image_too_large"),
    ],
)
def test_bad_samples_are_rejected_rows(tmp_path: Path, members: Members, code: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("0.jpg", b"x"), *members, ("2.jpg", b"x")]))
    rows = read_plan(plan(tmp_path / "a.tar"), max_bytes=1000)
    assert column(rows, "key") == ["0", "1", "2"]
    assert errors(rows) == [None, code, None]


def test_a_value_of_another_type_than_planned_is_rejected(tmp_path: Path) -> None:
    early = [member for n in range(2000) for member in ((f"{n}.jpg", b"x"), (f"{n}.json", b'{"a": 1}'))]
    (tmp_path / "a.tar").write_bytes(tar_of([*early, ("z.jpg", b"x"), ("z.json", b'{"a": "one"}')]))
    rows = read(tmp_path / "a.tar")
    assert (rows[-1]["key"], rows[-1]["error_code"]) == ("z", "schema_mismatch")
    assert "a is 'one'" in rows[-1]["error_message"]


def test_long_and_non_ascii_names_make_keys(tmp_path: Path) -> None:
    names = ["ключ/" + "x" * 300, "../up", "日本"]
    (tmp_path / "a.tar").write_bytes(tar_of([(f"{name}.jpg", b"x") for name in names]))
    assert column(read(tmp_path / "a.tar"), "key") == ["ключ/" + "x" * 300, "../up", "日本"]
    latin = tar_of([("\udce9.jpg", b"x")])
    (tmp_path / "a.tar").write_bytes(latin)
    assert column(read(tmp_path / "a.tar"), "key") == ["�"]


def test_a_plan_of_an_earlier_version_is_read_by_its_rule(tmp_path: Path) -> None:
    """Its shards are cut by numbers of samples, which links and names with several dots would move."""
    link = tarfile.TarInfo("bat.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "dog.jpg"
    data = tar_of([("ant.jpg", b"0"), ("ant.cls", b"7")])[:2048] + link.tobuf()
    data += tar_of([("cat.1.jpg", b"1"), ("cat.2.jpg", b"2"), ("dog.jpg", b"3"), ("dog.txt", b" ")])
    (tmp_path / "a.tar").write_bytes(data + tar_of([("joined.jpg", b"4")]))
    now = plan(tmp_path / "a.tar", rows_per_shard=2)
    assert column(read_plan(now, 2), "key") == ["ant", "bat", "cat.1", "cat.2", "dog", "joined"]
    stored = {name: value for name, value in now.schema.to_json().items() if name not in ("members", "reading")}
    empty = replace(now.schema, passthrough=pa.schema([]), origins=()).to_json()
    stored |= {name: empty[name] for name in ("passthrough", "passthrough_ipc", "origins")}
    then = replace(now, schema=InputSchema.from_json(stored))
    notices: Counter[str] = Counter()
    rows = read_plan(then, 2, notices=notices)
    assert column(rows, "key") == ["ant", "cat", "dog"]
    assert errors(rows) == [None, "missing_image", None]
    assert not notices
    counted = sum(count_rows(piece.slice, 100, then.schema) for piece in then.pieces)
    assert counted == len(rows)


@pytest.mark.parametrize("rows", [50, 100, 200])
def test_no_shard_is_planned_for_the_zeros_at_the_end_of_a_tar(tmp_path: Path, rows: int) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([(f"{row:03d}.jpg", b"x" * 3000) for row in range(200)]))
    pieces = plan(tmp_path / "a.tar", rows_per_shard=rows).pieces
    assert len(pieces) == 200 // rows


@pytest.mark.parametrize(
    ("sizes", "last"),
    [
        pytest.param([1_000] * 1200 + [60_000] * 60, range(1), id="larger"),
        pytest.param([60_000] * 40 + [1_000] * 400, range(51, 1000), id="smaller"),
    ],
)
def test_the_last_shard_of_a_tar_whose_later_samples_are_unlike_the_first_has_no_rows_or_more(
    tmp_path: Path, sizes: list[int], last: range
) -> None:
    """The number of samples is estimated from the first MiB, as `docs/scaling.md` says; no row is lost by that."""
    (tmp_path / "a.tar").write_bytes(tar_of((f"{row:05d}.jpg", bytes(size)) for row, size in enumerate(sizes)))
    planned = plan(tmp_path / "a.tar", rows_per_shard=50)
    rows = [
        sum(batch.num_rows for batch in read_slices([piece.slice], planned.schema, MAX_IMAGE_BYTES))
        for piece in planned.pieces
    ]
    assert sum(rows) == len(sizes)
    assert rows[-1] in last

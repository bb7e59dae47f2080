"""Second thoughts: rejected rows done again, sources that changed, copies of the same data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.images import encoded, scene
from tests.support.make_inputs import GOOD, HTML, image_table
from tests.support.run_command import Outcome, encode, run
from tests.support.shard_runs import snapshot
from transforms import storage

NAMES = ("a", "b", "c", "d", "e", "f")


def photos(folder: Path) -> Path:
    """Six images in shards of three; `b` is a web page."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        (folder / f"{name}.jpg").write_bytes(HTML if name == "b" else encoded(scene(40 + number, 24), "JPEG"))
    return folder


def encode_photos(source: Path, output: Path, model: Path, *flags: str) -> Outcome:
    return encode(source, output, model, "--rows_per_shard", "3", *flags)


def keys(outcome: Outcome) -> list[str]:
    return [row["key"] for row in outcome.rows()]


def test_a_replaced_file_is_taken_by_retry_and_no_other_row_is_lost(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    first = encode_photos(source, output, tiny_model)
    assert (first.code, keys(first)) == (0, ["a", "c", "d", "e", "f"])
    before = {row["key"]: row["encoding"] for row in first.rows()}

    (source / "b.jpg").write_bytes(GOOD)
    again = encode_photos(source, output, tiny_model, "--retry_rejected")
    assert again.code == 0, again.err + again.out
    assert keys(again) == list(NAMES)
    assert {row["key"]: row["encoding"] for row in again.rows() if row["key"] != "b"} == before
    assert again.rejected() == []
    mark, other = again.marks()
    now = storage.stat(str(source / "b.jpg"))
    assert mark["sources"] == [{"uri": now.uri, "size": now.size, "version": now.version}]
    assert "sources" not in other
    assert run("verify", output).code == 0
    assert again.files("_SUCCESS") == ["_SUCCESS"]
    assert not (output / "_vqbeam/redone/00000").exists()
    assert again.files("_vqbeam/retry/*") == []
    fresh = encode_photos(source, tmp_path / "fresh", tiny_model)
    assert [fresh.read(f"data/{n}.parquet") for n in ("00000", "00001")] == [
        again.read(f"data/{n}.parquet") for n in ("00000", "00001")
    ]


def test_a_shard_whose_retry_fails_keeps_its_rows_and_may_be_left_as_it_is(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    first = encode_photos(source, output, tiny_model)
    before = snapshot(str(output))
    (source / "b.jpg").write_bytes(GOOD)
    (source / "c.jpg").unlink()

    failed = encode_photos(source, output, tiny_model, "--retry_rejected")
    assert failed.code == 1
    assert "c.jpg is gone since the plan was made: restore it" in failed.out
    assert "run the same command again" not in failed.out
    assert keys(failed) == keys(first)

    left = encode_photos(source, output, tiny_model)
    assert left.code == 0, left.out
    assert snapshot(str(output)) == before


def test_rows_that_are_there_are_not_given_up_for_rows_that_fail_today(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "list.csv").write_text("image\nx.jpg\ny.jpg\nz.jpg\n")
    for name in "xy":
        (tmp_path / f"{name}.jpg").write_bytes(GOOD)
    output = tmp_path / "out"
    assert encode(tmp_path / "list.csv", output, tiny_model).code == 0
    (tmp_path / "z.jpg").write_bytes(GOOD)
    (tmp_path / "x.jpg").unlink()

    again = encode(tmp_path / "list.csv", output, tiny_model, "--retry_rejected")
    assert again.code == 1
    assert "it would reject 1 row that it has" in again.out
    assert "x.jpg" in again.out
    assert len(again.rows()) == 2
    (tmp_path / "x.jpg").write_bytes(GOOD)
    assert encode(tmp_path / "list.csv", output, tiny_model, "--retry_rejected").code == 0
    assert len(again.rows()) == 3


def test_a_copied_dataset_is_the_same_dataset(tmp_path: Path, tiny_model: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.parquet").write_bytes(image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]))
    assert encode(source, output, tiny_model, "--rows_per_shard", "2").code == 0
    undisturbed = snapshot(str(output))
    for path in ("_vqbeam/stats/00001.json", "data/00001.parquet", "_SUCCESS"):
        (output / path).unlink()
    os.utime(source / "b.parquet", (1e9, 1e9))

    again = encode(source, output, tiny_model, "--rows_per_shard", "2")
    assert again.code == 0, again.out
    assert "another time than when it was planned, and the same size" in again.out
    after = snapshot(str(output))
    assert {name: data for name, data in after.items() if "/stats/" not in name} == {
        name: data for name, data in undisturbed.items() if "/stats/" not in name
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"),  # of the same size
        lambda path: path.write_bytes(image_table([GOOD], key=["other"])),
    ],
)
def test_a_changed_table_fails_its_shard_with_one_advice(
    tmp_path: Path, tiny_model: Path, change: Callable[[Path], object]
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "ab":
        (source / f"{name}.parquet").write_bytes(image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]))
    flags = ("--rows_per_shard", "2")
    assert encode(source, output, tiny_model, *flags).code == 0
    for path in ("_vqbeam/stats/00001.json", "data/00001.parquet", "_SUCCESS"):
        (output / path).unlink()
    change(source / "b.parquet")

    failed = encode(source, output, tiny_model, *flags)
    assert failed.code == 1
    assert "b.parquet changed since the plan was made" in failed.out
    assert "restore it, or use --retry_rejected to take it as it is now" in failed.out
    assert "run the same command again" not in failed.out
    assert "overwrite" not in failed.out

    taken = encode(source, output, tiny_model, *flags, "--retry_rejected")
    assert taken.code == 0, taken.out
    assert taken.marks()[1]["sources"][0]["uri"].endswith("b.parquet")
    assert run("verify", output).code == 0


def test_a_changed_table_in_several_shards_is_not_taken_in_part(tmp_path: Path, tiny_model: Path) -> None:
    table, output = tmp_path / "a.parquet", tmp_path / "out"
    table.write_bytes(image_table([GOOD, GOOD, HTML, GOOD], key=list("abcd")))
    flags = ("--rows_per_shard", "2")
    assert encode(table, output, tiny_model, *flags).code == 0
    table.write_bytes(image_table([GOOD, GOOD, GOOD, GOOD, GOOD], key=list("vwxyz")))
    failed = encode(table, output, tiny_model, *flags, "--retry_rejected")
    assert failed.code == 1
    assert "is cut into several shards: restore it, or start over in another output folder" in failed.out
    assert keys(failed) == ["a", "b", "d"]


def unmarked(source: Path, output: Path, model: Path) -> Outcome:
    """A job of three shards of which the last two have no mark."""
    source.mkdir()
    for name in "abc":
        (source / f"{name}.parquet").write_bytes(image_table([GOOD, GOOD], key=[f"{name}0", f"{name}1"]))
    done = encode(source, output, model, "--rows_per_shard", "2")
    for path in ("_vqbeam/stats/00001.json", "_vqbeam/stats/00002.json", "_SUCCESS"):
        (output / path).unlink()
    return done


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda data: shutil.copy(data / "00000.parquet", data / "00001.parquet"), "it is of shard 0"),
        (lambda data: (data / "00001.parquet").write_bytes(b""), "is damaged"),
        (lambda data: flip(data / "00001.parquet", 40), "00001.parquet"),
        (lambda data: (data / "00001.parquet").write_bytes(image_table([GOOD], key=["x"])), "00001.parquet"),
    ],
)
def test_a_table_is_adopted_only_if_it_is_the_shard_s(
    tmp_path: Path, tiny_model: Path, harm: Callable[[Path], object], said: str
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    done = unmarked(source, output, tiny_model)
    good = [done.read(f"data/0000{number}.parquet") for number in range(3)]
    harm(output / "data")

    failed = encode(source, output, tiny_model, "--rows_per_shard", "2")
    assert failed.code == 1
    assert said in failed.out
    assert f"`vqbeam verify --repair {output}`" in failed.out
    assert len(failed.marks()) == 2, "the other one was adopted"
    assert "data/00001.parquet is in no mark" in run("verify", output).out

    assert run("verify", output, "--repair").code == 1
    again = encode(source, output, tiny_model, "--rows_per_shard", "2")
    assert again.code == 0, again.out
    assert [again.read(f"data/0000{number}.parquet") for number in range(3)] == good
    assert run("verify", output).code == 0


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"shard": 1}', b'\xff\xfe{"shard": 0}'],
)
def test_a_damaged_mark_is_named_and_repaired(tmp_path: Path, tiny_model: Path, content: bytes) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    before = snapshot(str(output))
    mark = output / "_vqbeam/stats/00000.json"
    mark.write_bytes(content)
    rerun = encode_photos(source, output, tiny_model)
    assert rerun.code == 1
    for told in (rerun.out, run("status", output).out, run("verify", output).out):
        assert f"the mark {mark} is" in told
        assert f"`vqbeam verify --repair {output}`" in told
    run("verify", output, "--repair")
    again = encode_photos(source, output, tiny_model)
    assert again.code == 0, again.out
    assert snapshot(str(output)) == before


def test_a_mark_that_lists_files_elsewhere_is_damaged(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    precious = tmp_path / "x"
    precious.write_text("mine")
    mark = output / "_vqbeam/stats/00000.json"
    values = json.loads(mark.read_text())
    values["objects"].append({"path": "../x", "size": 4, "sha256": "0"})
    mark.write_text(json.dumps(values))
    assert "outside of the folder" in run("verify", output, "--repair").out
    assert encode_photos(source, output, tiny_model, "--retry_rejected").code == 0
    assert encode_photos(source, output, tiny_model, "--overwrite").code == 0
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"no plan", b"PAR1" + b"\xff" * 40 + b"PAR1"])
def test_a_damaged_plan_is_named(tmp_path: Path, tiny_model: Path, content: bytes) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    (output / "_vqbeam/shards.parquet").write_bytes(content)
    for outcome in (encode_photos(source, output, tiny_model), run("status", output), run("verify", output)):
        assert outcome.code == 1
        assert f"the plan {output}/_vqbeam/shards.parquet is damaged" in outcome.err


def test_overwriting_keeps_and_names_files_of_the_user(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    (output / "data/notes.txt").write_text("mine")
    (output / "data/.vqbeam-partial-00000.parquet-1").write_text("left by a kill")
    again = encode_photos(source, output, tiny_model, "--overwrite")
    assert again.code == 0
    assert "keeps 1 file that vqbeam did not write: data/notes.txt" in again.err
    assert (output / "data/notes.txt").read_text() == "mine"
    assert list(output.rglob(".vqbeam*")) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, "is missing"),
        (cut, "bytes, its mark says"),
        (emptied, "has 0 bytes, its mark says"),
        (zeroed, "is no readable Parquet file"),
    ],
)
@pytest.mark.parametrize("name", ["data/00000.parquet", "_vqbeam/errors/00000.*.parquet"])
def test_a_damaged_table_is_named_by_all_and_repaired(
    tmp_path: Path, tiny_model: Path, harm: Callable[[Path], object], said: str, name: str
) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    before = snapshot(str(output))
    (table,) = output.glob(name)
    harm(table)
    path = str(table.relative_to(output))
    rerun = encode_photos(source, output, tiny_model)
    assert rerun.code == 1
    for told in (rerun.out, run("status", output).out):
        assert f"{path} " in told
        assert said in told
        assert f"`vqbeam verify --repair {output}`" in told
    verified = run("verify", output, "--repair")
    assert f"{path} " in verified.out
    again = encode_photos(source, output, tiny_model)
    assert again.code == 0, again.out
    assert snapshot(str(output)) == before


def test_damage_inside_a_table_is_left_to_verify(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    flip(output / "data/00000.parquet", 40)
    assert "damaged" not in run("status", output).out
    assert "has another checksum" in run("verify", output).out


@pytest.mark.parametrize("harm", [Path.unlink, cut, emptied])
def test_the_plan_s_copy_for_people_mends_itself(
    tmp_path: Path, tiny_model: Path, harm: Callable[[Path], object]
) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    before = snapshot(str(output))
    harm(output / "_vqbeam/plan.json")
    for command in ("status", "verify"):
        assert "plan.json is missing or damaged: the next run of the job writes it anew" in run(command, output).out
    assert encode_photos(source, output, tiny_model).code == 0
    assert snapshot(str(output)) == before
    assert run("verify", output).code == 0


def harm_body(plan: Path) -> None:
    """Damage the rows of a plan, not the end that describes them."""
    data = bytearray(plan.read_bytes())
    data[4:300] = b"\xff" * 296
    plan.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [Path.unlink, cut, emptied, zeroed, harm_body])
@pytest.mark.parametrize("copied", [True, False])
def test_overwriting_gets_out_of_a_damaged_plan(
    tmp_path: Path, tiny_model: Path, harm: Callable[[Path], object], copied: bool
) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    before = snapshot(str(output))
    harm(output / "_vqbeam/shards.parquet")
    mine = ("data/notes.txt", "data/00000.txt", "_vqbeam/stats/mine.json", "images/a/b.png", "c.txt")
    for name in mine:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")
    if not copied:
        (output / "_vqbeam/plan.json").unlink()
    refused = encode_photos(source, output, tiny_model)
    assert refused.code == 1
    assert "restore it from a copy, choose another output folder, or overwrite to start over" in refused.err

    again = encode_photos(source, output, tiny_model, "--overwrite")
    assert again.code == 0, again.err
    assert "data/notes.txt" in again.err
    for name in mine:
        assert (output / name).read_text() == "mine"
        (output / name).unlink()
    assert snapshot(str(output)) == before


def test_an_overwritten_job_starts_without_marks_of_attempts(tmp_path: Path, tiny_model: Path) -> None:
    source, output = photos(tmp_path / "in"), tmp_path / "out"
    encode_photos(source, output, tiny_model)
    (output / "_vqbeam/attempts").mkdir(exist_ok=True)
    (output / "_vqbeam/attempts/00009.0123456789ab").touch()
    assert encode_photos(source, output, tiny_model, "--overwrite").code == 0
    assert list(output.glob("_vqbeam/attempts/*")) == []

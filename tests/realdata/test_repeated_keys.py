"""Keys that repeat across tars, folders or endings are all kept, and told in the summary and by `verify`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import keys
from tests.support.images import encoded, scene
from tests.support.run_command import SMALL, Outcome, encode, run

KEPT = "; all are kept"
JPEG = encoded(scene(16, 16), "JPEG")


def write_tar(path: Path, names: str) -> Path:
    """A tar of images with names of one letter."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(JPEG)
            tar.addfile(info, io.BytesIO(JPEG))
    return path


def told(done: Outcome) -> list[str]:
    """What a summary or `verify` says of keys."""
    starts = ("  notice     ", f"{done.output}: ")
    lines = [line.removeprefix(start) for line in done.out.splitlines() for start in starts if line.startswith(start)]
    return [line for line in lines if "key" in line]


def shards_with(done: Outcome, key: str) -> str:
    """In words, the shards that have a key: two."""
    tables = {path: pq.read_table(io.BytesIO(done.read(path)))["key"].to_pylist() for path in done.files("data/*")}
    first, second = (Path(path).stem for path, found in tables.items() if key in found)
    return f"shards {first} and {second}"


def check(done: Outcome, *expected: str) -> None:
    """The run and `verify` say so, and no more."""
    assert done.code == 0, done.err
    assert told(done) == [*expected]
    verified = run("verify", done.output)
    assert verified.code == 0, verified.out
    assert told(Outcome(0, done.output, verified.out, verified.err)) == [*expected]


def test_keys_of_tars_in_shards_of_their_own_are_compared(tmp_path: Path, tiny_model: Path) -> None:
    for number, names in enumerate(("xz", "qzq")):
        write_tar(tmp_path / f"{number}.tar", names)
    words = (tmp_path / "*.tar", tmp_path / "o", tiny_model, "--rows_per_shard", "3")
    done = encode(*words)
    assert [row["key"] for row in done.rows()] == list("xzqzq")
    assert len(done.marks()) > 1
    check(done, f"2 keys occur more than once (4 rows), such as 'z' in {shards_with(done, 'z')}{KEPT}")
    again = encode(*words)
    assert again.out.startswith("Done already")
    assert told(again) == told(done)
    write_tar(tmp_path / "2.tar", "x")
    more = encode(*words, "--extend")
    check(more, f"3 keys occur more than once (6 rows), such as 'x' in {shards_with(more, 'x')}{KEPT}")


def test_keys_that_do_not_repeat_are_not_spoken_of(tmp_path: Path, tiny_model: Path) -> None:
    write_tar(tmp_path / "a.tar", "ab")
    write_tar(tmp_path / "b.tar", "AB")
    check(encode(tmp_path / "*.tar", tmp_path / "o", tiny_model))


def test_two_endings_of_one_name_have_one_key(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "a.png", "b.jpg", "sub/b.jpg"):
        (tmp_path / "in" / name).write_bytes(JPEG)
    done = encode(tmp_path / "in", tmp_path / "o", tiny_model)
    assert [row["key"] for row in done.rows()] == ["a", "a", "b", "sub/b"]
    check(done, f"1 key occurs more than once (2 rows), such as 'a' in shard 00000{KEPT}")


def test_several_folders_with_files_of_one_name_are_compared(tmp_path: Path, tiny_model: Path) -> None:
    folders = [tmp_path / f"folder{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
        (folder / "a.jpg").write_bytes(JPEG)
    words = ("encode", "--model", tiny_model, *SMALL, "--rows_per_shard", "1", "--input", *folders)
    done = run(*words, output=tmp_path / "o")
    check(done, f"1 key occurs more than once (6 rows), such as 'a' in shards 00000, 00001, 00002 and 3 more{KEPT}")


def test_keys_of_a_table_are_shown_in_one_short_line(tmp_path: Path, tiny_model: Path) -> None:
    key = "a\n\x1b[31m" + 1000 * "é"
    pq.write_table(pa.table({"image": [JPEG] * 2, "key": [key] * 2}), tmp_path / "t.parquet")
    done = encode(tmp_path / "t.parquet", tmp_path / "o", tiny_model)
    assert done.code == 0, done.err
    (line,) = told(done)
    assert line.startswith("1 key occurs more than once (2 rows), such as 'a\\n\\x1b[31mé")
    assert len(line) < 200


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_variations_of_an_image_share_its_key_but_do_not_repeat_it(
    tmp_path: Path, tiny_model: Path, layout: str
) -> None:
    pq.write_table(pa.table({"image": [JPEG] * 6, "key": list("abccde")}), tmp_path / "t.parquet")
    words = ("vary", "--model", tiny_model, *SMALL, "--rows_per_shard", "3", "--images_per_input", "2")
    done = run(*words, "--input", tmp_path / "t.parquet", "--image_layout", layout, output=tmp_path / "o")
    found = f"1 key occurs more than once (2 rows), such as 'c' in shards 00000 and 00001{KEPT}"
    if layout == "parquet":
        check(done, found)
    else:
        left = f"keys were not compared, since they are in tars: `vqbeam verify {done.output}` compares them"
        assert told(done) == [left]
        assert f"{done.output}: {found}" in run("verify", done.output).out


def test_beyond_some_rows_they_are_left_to_verify(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", "aabc")
    monkeypatch.setattr(keys, "MOST_ROWS", 3)
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    left = f"keys were not compared, since there are more than 3: `vqbeam verify {done.output}` compares them"
    assert told(done) == [left]
    assert "1 key occurs more than once (2 rows)" in run("verify", done.output).out


def test_a_fault_while_keys_are_compared_does_not_fail_a_job_that_is_done(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    write_tar(tmp_path / "a.tar", "aabc")
    monkeypatch.setattr(keys, "find_repeated_keys", full)
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    check(done, "keys were not compared: [Errno 28] No space left on device")
    assert done.files("_SUCCESS")


def test_verify_compares_no_keys_of_a_damaged_job(tmp_path: Path, tiny_model: Path) -> None:
    write_tar(tmp_path / "a.tar", "aabc")
    done = encode(tmp_path / "a.tar", tmp_path / "o", tiny_model)
    (tmp_path / "o" / "data" / "00000.parquet").write_bytes(b"damaged")
    verified = run("verify", done.output)
    assert verified.code == 1
    assert "more than once" not in verified.out

"""The files that an input names, and their format, inferred from their endings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.support.make_inputs import folder
from transforms import storage
from transforms.errors import UsageError
from transforms.inputs.formats import formats_of
from transforms.inputs.formats.format import Inputs
from transforms.inputs.listing import find_inputs
from transforms.inputs.request import Kind


def find(*patterns: object, input_format: str | None = None) -> Inputs:
    return find_inputs([str(pattern) for pattern in patterns], input_format)


def names(found: Inputs, root: Path) -> list[str]:
    return [file.uri.removeprefix(f"{root}/") for file in found.files]


def test_brace_patterns_name_each_file_in_order(tmp_path: Path) -> None:
    folder(tmp_path, {f"{number:05d}.tar": b"x" for number in range(12)})
    found = find(tmp_path / "{00009..00011}.tar", tmp_path / "{00000,00005}.tar")
    assert names(found, tmp_path) == [f"{number:05d}.tar" for number in (9, 10, 11, 0, 5)]


def test_a_missing_file_of_a_brace_pattern_is_named(tmp_path: Path) -> None:
    folder(tmp_path, {"0.tar": b"x"})
    with pytest.raises(UsageError, match=r"no matching files: .*/1\.tar \(of .*\{0\.\.1\}\.tar\)"):
        find(tmp_path / "{0..1}.tar")


@pytest.mark.parametrize("pattern", ["nothing/*.tar", "nothing", "nothing.parquet", "**/*.jpg"])
def test_no_matching_files_names_the_pattern(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"no matching files: [^(]*$"):
        find(tmp_path / pattern)


def test_a_missing_file_with_a_relative_name_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"^no matching files: {re.escape(str(tmp_path))}/nope$"):
        find(Path("nope"))


def test_globs_and_folders_overlap_without_reading_twice(tmp_path: Path) -> None:
    folder(tmp_path, {"a/1.tar": b"x", "a/2.tar": b"x", "b/1.tar": b"x"})
    assert names(find(tmp_path / "*/1.tar", tmp_path), tmp_path) == ["a/1.tar", "b/1.tar", "a/2.tar"]


def test_keys_are_relative_to_what_comes_before_the_first_wildcard(tmp_path: Path) -> None:
    folder(tmp_path, {"a/b/1.csv": "path\n"})
    roots = [find(tmp_path / pattern).files[0].root for pattern in ("a/b/1.csv", "a", "a/*/1.csv", "**/*.csv")]
    assert roots == [f"{tmp_path}/a/b", f"{tmp_path}/a", f"{tmp_path}/a", f"{tmp_path}"]


def test_names_with_braces_and_brackets_can_be_named_by_their_folder(tmp_path: Path) -> None:
    folder(tmp_path, {"a{b.tar": b"x"})
    assert names(find(tmp_path / "a{b.tar"), tmp_path) == ["a{b.tar"]


JOB = {"_vqbeam/plan.json": b"{}", "_vqbeam/shards.parquet": b"x"}
OUTPUTS: dict[Kind, tuple[str, str]] = {  # what is read, and what another job wrote beside it
    "images": ("a.png", "images/00000/b.png"),
    "codes": ("a.parquet", "data/00000.parquet"),
    "prompts": ("a.jsonl", "codes/00000.jsonl"),
}


@pytest.mark.parametrize("store", ["local", "memory"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_other_jobs_inside_a_folder_are_named(kind: Kind, store: str, tmp_path: Path) -> None:
    mine, made = OUTPUTS[kind]
    home = str(tmp_path) if store == "local" else f"memory://{tmp_path.name}-{kind}"
    for name, data in {mine: b"x", **{f"b/out/{path}": data for path, data in {made: b"x", **JOB}.items()}}.items():
        storage.put_bytes(data, storage.join(home, name))
    root = storage.absolute(home)
    ending = mine.rpartition(".")[2]
    told = f"{home} holds the output of other jobs, whose files would be read as its own: {root}/b/out. Give a"
    with pytest.raises(UsageError) as raised:
        find_inputs([home], None, kind)
    assert told in str(raised.value)
    assert f"such as '{root}/*.{ending}'" in str(raised.value)
    assert len(find_inputs([f"{home}/*.{ending}"], None, kind).files) == 1
    assert len(find_inputs([f"{home}/b/out"], None, kind).files) == 1  # the output itself
    assert len(find_inputs([f"{home}/**/*.{ending}"], None, kind).files) == 2  # asked for
    assert len(find_inputs([home], None, kind, own=[f"{root}/b/out/{made.partition('/')[0]}"]).files) == 1


def test_outputs_of_other_jobs_that_are_of_another_format_are_not_in_the_way(tmp_path: Path) -> None:
    folder(tmp_path, {"a.tar": b"x", "out/data/0.parquet": b"x", **{f"out/{name}": data for name, data in JOB.items()}})
    assert names(find(tmp_path, input_format="webdataset"), tmp_path) == ["a.tar"]
    with pytest.raises(UsageError, match=r"holds the output of other jobs, .*/out\. Give a pattern .*/\*\.tar'"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.tar", "b.tar.gz", "c.tgz"], "webdataset"),
        (["00000.tar", "00000.parquet", "00000_stats.json"], "webdataset"),
        (["00000/1.jpg", "00000/1.txt", "00000/1.json", "00000.parquet", "00000_stats.json"], "files"),
        (["a.jpg", "metadata.jsonl"], "files"),
        (["a.parquet", "b.PARQUET", "_SUCCESS"], "parquet"),
        (["a.csv", "b.csv.gz"], "csv"),
        (["a.tsv"], "tsv"),
        (["a.jsonl.gz", "b.ndjson"], "jsonl"),
        (["data/0.parquet", "_vqbeam/errors/0.parquet", ".cache/x.tar"], "parquet"),
    ],
)
def test_the_format_of_a_folder(tmp_path: Path, files: list[str], expected: str) -> None:
    found = find(folder(tmp_path, dict.fromkeys(files, b"x")))
    assert found.format == expected
    assert not any("/_" in file.uri or "/." in file.uri for file in found.files)


def test_metadata_beside_tars_is_no_input_even_when_parquet_is_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, dict.fromkeys(["0.tar", "0.parquet", "own.parquet"], b"x"))
    assert names(find(tmp_path, input_format="parquet"), tmp_path) == ["own.parquet"]
    assert names(find(tmp_path / "0.parquet"), tmp_path) == ["0.parquet"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.csv", "b.jpg"], r"files of several formats \(1 of csv, 1 of files\)"),
        (["a.tar", "b.parquet"], r"1 of parquet, 1 of webdataset"),
        (["a.bin"], r"no format can be inferred from the file extensions \(a\.bin\)"),
    ],
)
def test_a_folder_whose_format_is_not_plain_is_wrong_usage(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(folder(tmp_path, dict.fromkeys(files, b"x")))


def test_several_formats_in_one_job_are_wrong_usage(tmp_path: Path) -> None:
    folder(tmp_path, {"a.csv": "x", "b.tar": "x"})
    with pytest.raises(UsageError, match=r"several formats \(.*a\.csv is csv; .*b\.tar is webdataset\)"):
        find(tmp_path / "a.csv", tmp_path / "b.tar")


def test_no_name_has_the_ending_of_two_formats() -> None:
    """So the order in which formats are registered does not decide which one is inferred."""
    for kind in get_args(Kind):
        endings = [(ending, name) for name, format in formats_of(kind).items() for ending in format.endings]
        for ending, name in endings:
            assert {other for end, other in endings if ending.endswith(end)} == {name}, ending


def test_the_format_can_be_given(tmp_path: Path) -> None:
    folder(tmp_path, {"a.bin": b"x", "b.csv": b"x", "c.jpg": b"x"})
    assert find(tmp_path / "a.bin", input_format="webdataset").format == "webdataset"
    assert names(find(tmp_path, input_format="csv"), tmp_path) == ["b.csv"]
    with pytest.raises(UsageError, match=r"has none of format tsv"):
        find(tmp_path, input_format="tsv")
    with pytest.raises(UsageError, match=r"expected one of csv, .*, not tfrecord"):
        find(tmp_path, input_format="tfrecord")


def test_a_name_that_is_not_utf8_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"not UTF-8"):
        find(tmp_path)

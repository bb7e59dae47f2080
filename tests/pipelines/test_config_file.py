"""`--config FILE`: what it may hold, what wins, what is refused, and what is kept of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.command import find
from pipelines.config_file import with_config
from pipelines.parsing import parse, parser_of
from tests.support.paths import SAMPLE
from transforms.errors import UsageError

TAR = SAMPLE / "emoji-00000.tar"


def read(tmp_path: Path, text: str, line: str = "", command: str = "encode", name: str = "job.yaml"):
    """The parsed flags, those of Beam, and the text that is kept."""
    (tmp_path / name).write_text(text)
    parser = parser_of(command, find(command))
    words, kept = with_config([*line.split(), "--config", str(tmp_path / name)], parser)
    return *parse(parser, words, launches=True), kept


def test_a_file_gives_flags_in_both_spellings_as_text_numbers_lists_and_switches(tmp_path: Path) -> None:
    text = "input: [a/*.tar, b]\noutput: t\nrows-per-shard: 010\nmax_error_rate: 0.5\noverwrite: true\nextend: no\n"
    args, beam, _ = read(tmp_path, text)
    assert (args.patterns, args.output, args.rows_per_shard) == (["a/*.tar", "b"], "t", 10)
    assert (args.max_error_rate, args.overwrite, args.extend, beam) == (0.5, True, False, [])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads TOML from 3.11 on")
def test_toml_gives_the_same(tmp_path: Path) -> None:
    text = 'input = ["a/*.tar", "b"]\noutput = "t"\nlimit = 10\nmax_error_rate = 0.5\noverwrite = true\n'
    args, _, kept = read(tmp_path, text, name="job.toml")
    assert (args.patterns, args.limit, args.max_error_rate, args.overwrite) == (["a/*.tar", "b"], 10, 0.5, True)
    again, *_ = read(tmp_path, kept, name="kept.yaml")
    assert {**vars(again), "config": None} == {**vars(args), "config": None}


def test_an_empty_list_is_one_where_a_flag_may_be_given_alone(tmp_path: Path) -> None:
    args, *_ = read(tmp_path, "input: a\noutput: t\ncolumns: []\n")
    assert args.columns == []


def test_the_command_line_wins_and_adds_nothing_to_lists(tmp_path: Path) -> None:
    args, beam, kept = read(tmp_path, "input: [a, b]\noutput: t\nproject: p\n", "--input c --project=q --limit 3")
    assert (args.patterns, args.output, args.limit, beam) == (["c"], "t", 3, ["--project=q"])
    assert kept == "output: t\ninput: c\nproject: q\nlimit: '3'\n"


def test_flags_of_beam_and_texts_that_look_like_flags_or_truths_arrive(tmp_path: Path) -> None:
    text = "prompt: [--odd, 'no']\noutput: -t\nexperiments: [a, b]\nno_auth: true\nstreaming: false\n"
    args, beam, _ = read(tmp_path, text, command="generate")
    assert (args.output, beam) == ("-t", ["--experiments=a", "--experiments=b", "--no_auth"])
    assert args.prompts == ["--odd", "no"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("input: []", "", "input has no value"),
        ("outptu: t", "", "unknown flag outptu; did you mean output?"),
        ("output: t\noutput: u", "", "output is there twice"),
        ("output:", "", "output has no value; leave it out, or give one"),
        ("output: {a: b}", "", "output is nested"),
        ("limit: [1, 2]", "", "limit takes one value, not a list"),
        ("overwrite: maybe", "", "overwrite is true or false, not maybe"),
        ("- a", "", "expected names of flags with their values"),
        ("a: [", "", "not YAML"),
        ("config: b.yaml", "", "a file cannot name another one"),
        ("output: t", "--config other.yaml", "--config needs one file, by name"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, text: str, line: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, text, line)
    assert message in str(error.value)
    assert "job.yaml" in str(error.value) or "needs one file" in message


def test_options_of_one_of_several_models_are_refused(tmp_path: Path) -> None:
    args, *_ = read(tmp_path, "model: [a, b]\ninput: i\n", command="evaluate")
    assert args.models == [{"model": "a"}, {"model": "b"}]
    with pytest.raises(UsageError, match="--image_size would belong to the last --model alone"):
        read(tmp_path, "model: [a, b]\ninput: i\nimage_size: 64\n", command="evaluate")


@pytest.mark.parametrize("name", ["missing.yaml", "job.ini"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--config", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


def test_a_job_keeps_its_flags_and_its_file_makes_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"input: {TAR}\noutput: {tmp_path}/a\nlimit: 8\n")
    assert main(["encode", "--config", str(tmp_path / "job.yaml"), "--columns", "glyph"]) == 0
    kept = tmp_path / "a" / "_vqbeam" / "config.yaml"
    assert main(["encode", "--config", str(kept), "--output", str(tmp_path / "b")]) == 0
    first, second = ((tmp_path / folder / "data" / "00000.parquet").read_bytes() for folder in "ab")
    assert first == second
    assert main(["encode", "--input", str(TAR), "--output", str(tmp_path / "c"), "--limit", "8"]) == 0
    assert not (tmp_path / "c" / "_vqbeam" / "config.yaml").exists()

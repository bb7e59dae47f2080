"""Requests that cannot be met are refused before anything is written: exit code 2 and a message of what to do."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tests.support.make_inputs import GOOD, files, image_table, samples, table, tar_of
from tests.support.run_command import encode, run
from tests.support.vqgan_checkpoints import (
    TINY,
    golden_config,
    golden_weights,
    random_vqgan,
    write_taming,
    write_vqgan_jax,
)


@dataclass(frozen=True)
class Refused:
    """`flags` may name the input folder as IN; `message` are parts of what is said on stderr."""

    name: str
    flags: str
    message: tuple[str, ...]
    command: str = "encode"


IN = {
    "photos/a.jpg": GOOD,
    "x.tar": tar_of(samples("a")),
    "two_images.parquet": table({"image": [GOOD], "jpg": [GOOD], "caption": ["c"]}),
    "no_image.parquet": table({"n": [1], "caption": ["c"]}),
    "clash.parquet": image_table([GOOD], encoding=["of text"]),
    "twice.parquet": image_table([GOOD], a=[True], b=[2]),
    "noise.parquet": b"no parquet at all" * 100,
    "tokens.parquet": table({"key": ["a"], "encoding": pa.array([[1.5]])}),
    "header.csv": b"key,key\na,b\n",
    "latin.csv": b"k\xe9y,file_name\na,b\n",
    "empty.csv": b"",
    "notes.doc": b"hello",
    "mixed/a.jpg": GOOD,
    "mixed/x.tar": tar_of(samples("a")),
}

CASES = (
    Refused("no such file", "--input IN/none*.tar", ("no matching files", "none*.tar")),
    Refused("one of a brace pattern is missing", "--input IN/{x,y}.tar", ("no matching files", "y.tar", "{x,y}.tar")),
    Refused("an unknown format", "--input IN/notes.doc", ("no format can be inferred", "input_format")),
    Refused("images instead of codes", "--input IN/photos", ("has images (a.jpg", "vqbeam encode"), command="decode"),
    Refused("several formats at once", "--input IN/mixed", ("several formats", "input_format")),
    Refused("a store that does not exist", "--input nosuch://bucket/x.tar", ("nosuch", "not known")),
    Refused("an unknown column", "--input IN/twice.parquet --image_column photo", ("photo", "it has", "caption")),
    Refused("an unknown column to keep", "--input IN/twice.parquet --columns a z", ("--columns", "no column z")),
    Refused("an unknown column to rename", "--input IN/twice.parquet --rename z=y", ("--rename", "no column z")),
    Refused(
        "a column of another type",
        "--input IN/twice.parquet --caption_column a",
        ("--caption_column: column a",),
    ),
    Refused(
        "two columns that could be the image", "--input IN/two_images.parquet", ("image and jpg", "--image_column")
    ),
    Refused("no column that could be the image", "--input IN/no_image.parquet", ("--image_column", "n (int64)")),
    Refused("a column with a name of ours", "--input IN/clash.parquet", ("encoding", "--rename: ", "encoding=NAME")),
    Refused("two columns renamed to one", "--input IN/twice.parquet --rename a=b", ("--rename: ", "a=NAME")),
    Refused("a rename without a new name", "--input IN/twice.parquet --rename a", ("--rename: 'a'", "OLD=NEW")),
    Refused("no parquet under its name", "--input IN/noise.parquet", ("noise.parquet", "no readable Parquet")),
    Refused("two columns of one name in csv", "--input IN/header.csv", ("header.csv", "same name")),
    Refused("a header that is no text", "--input IN/latin.csv", ("latin.csv", "header")),
    Refused("an empty table", "--input IN/empty.csv", ("empty.csv",)),
    Refused("a misspelt flag", "--input IN/x.tar --batchsize 4", ("--batchsize", "did you mean --batch_size?")),
    Refused("a value without a flag", "--input IN/x.tar --dtype float32 yes", ("'yes'",)),
    Refused("no batch", "--input IN/x.tar --batch_size 0", ("--batch_size", "0")),
    Refused("an unknown choice", "--input IN/x.tar --resize stretch", ("stretch", "center_crop")),
    Refused("a share above one", "--input IN/x.tar --max_error_rate 5", ("--max_error_rate", "from 0 to 1")),
    Refused("an aspect ratio below one", "--input IN/x.tar --max_aspect_ratio 0.5", ("--max_aspect_ratio", "0.5")),
    Refused("no input", "", ("--input",)),
    Refused("a plan to extend that is not there", "--input IN/x.tar --extend", ("no plan", "--extend")),
    Refused("a model that is not there", "--input IN/x.tar --model IN/nothing", ("nothing",)),
    Refused("a model folder without a model", "--input IN/x.tar --model IN/photos", ("photos",)),
    Refused("a misspelt command", "--input IN/x.tar", ("encod", "did you mean encode?"), command="encod"),
    Refused("codes that are no integers", "--input IN/tokens.parquet", ("tokens.parquet", "--code_column"), "decode"),
    Refused("tokens that are no parquet", "--input IN/x.tar", ("x.tar", "one of parquet"), "decode"),
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    files(IN)(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_that_cannot_be_met_is_refused(case: Refused, tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    words = case.flags.replace("IN/", f"{inputs}/").split()
    model = [] if "--model" in words else ["--model", str(tiny_model)]

    run(case.command, *words, *model, output=tmp_path / "out").check_refused(*case.message)


def test_a_clash_of_names_goes_away_with_rename(tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    result = encode(inputs / "clash.parquet", tmp_path / "out", tiny_model, "--rename", "encoding=text_encoding")
    assert result.code == 0, result.err
    assert [row["text_encoding"] for row in result.rows()] == ["of text"]


def test_a_folder_with_foreign_data_is_left_alone(tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    foreign = tmp_path / "out" / "data" / "theirs.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"theirs")

    result = encode(inputs / "x.tar", tmp_path / "out", tiny_model)

    assert result.code == 2
    assert "no plan of vqbeam knows" in result.err
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [foreign]


def test_another_job_in_the_same_folder_is_refused_with_what_differs(
    tmp_path: Path, inputs: Path, tiny_model: Path
) -> None:
    first = encode(inputs / "x.tar", tmp_path / "out", tiny_model)
    assert first.code == 0, first.err

    second = encode(inputs / "x.tar", tmp_path / "out", tiny_model, "--resize", "pad")

    assert second.code == 2
    for part in ("preprocessing.resize", "'center_crop'", "'pad'", "--output", "overwrite to start over"):
        assert part in second.err
    assert len(first.rows()) == 1


def cut_short(path: Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def cut_flax(folder: Path) -> None:
    write_vqgan_jax(folder, golden_weights(), golden_config())
    cut_short(folder / "flax_model.msgpack")


def cut_taming(folder: Path) -> None:
    write_taming(folder, dict(random_vqgan().state_dict()), TINY)
    cut_short(folder / "last.ckpt")


def missing_weight(folder: Path) -> None:
    weights = dict(random_vqgan().state_dict())
    del weights["decoder.conv_in.weight"]
    write_taming(folder, weights, TINY)


class Payload:
    """Writes a file when it is unpickled by a reader that runs code."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.proof,)


def pickle_with_code(folder: Path) -> None:
    write_taming(folder, dict(random_vqgan().state_dict()), TINY)
    torch.save({"state_dict": random_vqgan().state_dict(), "more": Payload(folder / "ran")}, folder / "last.ckpt")
    with zipfile.ZipFile(folder / "last.ckpt") as archive:  # the payload runs if it is unpickled
        assert b"touch" in next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))


def old_pickle_with_code(folder: Path) -> None:
    write_taming(folder, dict(random_vqgan().state_dict()), TINY)
    (folder / "last.ckpt").write_bytes(pickle.dumps(Payload(folder / "ran")))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_flax, "flax_model.msgpack"),
        (cut_taming, "last.ckpt"),
        (missing_weight, "decoder.conv_in.weight"),
        (pickle_with_code, "last.ckpt"),
        (old_pickle_with_code, "last.ckpt"),
    ],
)
def test_a_bad_checkpoint_is_refused_with_its_name(
    spoil: Callable[[Path], None], message: str, tmp_path: Path, inputs: Path
) -> None:
    spoil(tmp_path / "model")
    encode(inputs / "x.tar", tmp_path / "out", tmp_path / "model").check_refused(message)
    assert not (tmp_path / "model" / "ran").exists()


def test_a_safetensors_checkpoint_cut_short_is_refused(tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    cut_short(folder / "model.safetensors")
    encode(inputs / "x.tar", tmp_path / "out", folder).check_refused("model.safetensors")


@pytest.mark.parametrize("runner", ["DataflowRunner", "dataflow"])
def test_workers_of_dataflow_are_given_no_local_files(
    runner: str, tmp_path: Path, inputs: Path, tiny_model: Path
) -> None:
    refused = encode(inputs / "x.tar", tmp_path / "out", tiny_model, "--runner", runner, "--dry_run")
    refused.check_refused(f"--output {tmp_path}/out", "workers of Dataflow")


def test_another_runner_may_share_files_whatever_its_job_is_called(
    tmp_path: Path, inputs: Path, tiny_model: Path
) -> None:
    runner = ("--runner", "PortableRunner", "--job_endpoint", "embed", "--environment_type", "LOOPBACK")
    shown = encode(inputs / "x.tar", tmp_path / "out", tiny_model, *runner, "--job_name", "after-dataflow", "--dry_run")
    assert shown.code == 0, shown.err

"""Real runs ended by real signals, and two at once: what is in the folder at the end is what one quiet run makes."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.support.real_runs import PATIENCE, kill_at_work, objects, session, start, visible, wait_for_objects
from tests.support.small_jobs import ROWS, dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"), files=SHARDS)


def encode_words(source: Path, model: Path, output: Path) -> list[str]:
    words = ["encode", "--input", source, "--model", model, "--output", output, "--rows_per_shard", ROWS]
    return list(map(str, [*words, "--batch_size", 4, "--threads_per_worker", 1, "--device", "cpu"]))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> Path:
    """What one undisturbed run of encode leaves."""
    output = tmp_path_factory.mktemp("quiet") / "out"
    assert main(encode_words(source, tiny_model, output)) == 0
    return output


def decode_words(quiet: Path, output: Path, layout: str) -> list[str]:
    words = ["decode", "--input", f"{quiet}/data/0000*.parquet", "--output", output, "--image_layout", layout]
    return list(map(str, [*words, "--rows_per_shard", ROWS, "--batch_size", 4, "--threads_per_worker", 1]))


@pytest.mark.parametrize(
    ("kind", "seed", "workers"),
    [
        ("encode", 1, "1"),
        ("encode", 2, "1"),
        ("encode", 3, "2"),
        ("files", 4, "1"),
        ("files", 5, "2"),
        ("webdataset", 6, "1"),
        ("parquet", 7, "1"),
        ("evaluate", 8, "2"),
    ],
)
def test_a_run_that_is_killed_is_finished_by_the_next_as_if_nothing_had_been(
    tmp_path: Path, source: Path, quiet: Path, tiny_model: Path, kind: str, seed: int, workers: str
) -> None:
    def words(output: Path) -> list[str]:
        if kind in ("encode", "evaluate"):
            return [kind, *encode_words(source, tiny_model, output)[1:]]
        return decode_words(quiet, output, kind)

    output = tmp_path / "out"
    expected = quiet
    if kind != "encode":
        expected = tmp_path / "expected"
        assert main(words(expected)) == 0
    number = random.Random(seed).randrange(3, objects(expected) * 2 // 3)  # beyond, a run may end before it is killed
    kill_at_work(words(output), tmp_path / "temp", output, number, "--workers", workers)
    assert not (output / "_SUCCESS").exists()

    assert main([*words(output), "--temp_dir", str(tmp_path / "temp")]) == 0
    assert visible(output) == visible(expected)
    assert main(["verify", str(output)]) == 0


@pytest.mark.parametrize(
    ("number", "code", "workers"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "1"), (signal.SIGTERM, 143, "2")]
)
def test_a_run_that_is_stopped_leaves_nothing_behind_and_says_how_to_go_on(
    tmp_path: Path, source: Path, quiet: Path, tiny_model: Path, number: int, code: int, workers: str
) -> None:
    output, temp = tmp_path / "out", tmp_path / "temp"
    words = encode_words(source, tiny_model, output)
    process = start(words, temp, "--workers", workers)
    wait_for_objects(process, output, 6)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert "to resume:" in errors
    assert f"--output {output}" in errors.splitlines()[-1]
    assert session(process.pid) == []
    assert os.listdir(temp) == []
    assert list(output.rglob(".*")) == []
    assert not (output / "_SUCCESS").exists()
    assert 0 < len(list(output.glob("_vqbeam/stats/*.json"))) < SHARDS
    assert main(words) == 0
    assert visible(output) == visible(quiet)


def test_two_whole_jobs_in_one_folder_at_once_make_one_output(
    tmp_path: Path, source: Path, quiet: Path, tiny_model: Path
) -> None:
    output = tmp_path / "out"
    words = encode_words(source, tiny_model, output)
    runs = [start(words, tmp_path / name, "--workers", workers) for name, workers in (("a", "1"), ("b", "2"))]
    for process in runs:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert visible(output) == visible(quiet)
    assert list(output.rglob(".*")) == []
    assert main(["verify", str(output)]) == 0

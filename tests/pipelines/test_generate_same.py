"""The same seed and key give the same images, however a run is spread, cut or resumed, and beside any other rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_runs import kill_at_work, objects, start, visible
from tests.support.run_command import Outcome, run
from tests.support.shard_runs import snapshot
from tests.support.tiny_generator import generate, write_prompts

ROWS: list[dict[str, Any]] = [
    {"key": "a", "prompt": "a red apple"},
    {"key": "b", "prompt": "a blue rocket"},
    {"key": "c", "prompt": "?!"},
    {"key": "d", "prompt": "apple on background", "images": 5},
    {"key": "e", "prompt": "a red apple"},
    {"key": "f", "prompt": "rocket", "guidance_scale": 1, "seed": 3},
    {"key": "g", "prompt": "red", "top_k": 5},
]
FLAGS = ("--images_per_prompt", 3, "--keep_tokens")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("in") / "prompts.jsonl", ROWS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path, source: Path) -> Outcome:
    output = tmp_path_factory.mktemp("plain") / "out"
    outcome = generate(tiny_generator, output, "--input", source, "--rows_per_shard", 2, *FLAGS)
    assert outcome.code == 0, outcome.err
    return outcome


def images_of(outcome: Outcome) -> dict[tuple[str, int], tuple[list[int], bytes]]:
    """Codes and file of each image."""
    assert outcome.code == 0, outcome.err
    return {(row["key"], row["sample"]): (row["encoding"], outcome.read(row["image_path"])) for row in outcome.rows()}


def test_another_split_into_shards_moves_no_image(
    plain: Outcome, tiny_generator: Path, source: Path, tmp_path: Path
) -> None:
    for rows in (1, 3, 100):
        other = generate(tiny_generator, tmp_path / str(rows), "--input", source, "--rows_per_shard", rows, *FLAGS)
        assert images_of(other) == images_of(plain)
        other.check_nothing_lost()


def test_a_prompt_that_is_taken_out_moves_no_image_of_the_others(
    plain: Outcome, tiny_generator: Path, tmp_path: Path
) -> None:
    rest = write_prompts(tmp_path / "rest.jsonl", [row for row in ROWS if row["key"] not in "ad"])
    other = generate(tiny_generator, tmp_path / "out", "--input", rest, *FLAGS)
    assert images_of(other) == {name: image for name, image in images_of(plain).items() if name[0] not in "ad"}


def test_a_key_from_the_prompt_does_not_depend_on_its_position(tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--key_from", "prompt", *FLAGS)
    first = images_of(generate(tiny_generator, tmp_path / "1", *words, "--prompt", "a red apple", "rocket", "blue"))
    second = images_of(generate(tiny_generator, tmp_path / "2", *words, "--prompt", "blue", "a red apple"))
    by_codes = {tuple(codes) for codes, _ in first.values()}
    assert len(by_codes) == 9
    assert set(second) < set(first)
    assert {name: codes for name, (codes, _) in second.items()} == {name: first[name][0] for name in second}


def test_keys_samples_and_seeds_make_different_images(plain: Outcome, tiny_generator: Path, tmp_path: Path) -> None:
    """Rows a and e have the same prompt."""
    source = write_prompts(tmp_path / "a.jsonl", ROWS[:1])
    seeded = generate(tiny_generator, tmp_path / "out", "--input", source, "--seed", 1, *FLAGS)
    found = [codes for (key, _), (codes, _) in images_of(plain).items() if key in "ae"]
    found += [codes for codes, _ in images_of(seeded).values()]
    assert len({tuple(codes) for codes in found}) == len(found) == 9


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--direct_running_mode", "multi_threading", "--direct_num_workers", "2"), id="two threads"),
        pytest.param(("--workers", "2"), id="two processes", marks=pytest.mark.slow),
    ],
)
def test_workers_write_the_same_bytes(
    flags: tuple[str, ...], plain: Outcome, tiny_generator: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome = generate(tiny_generator, output, "--input", source, "--rows_per_shard", 2, *FLAGS, *flags)
    assert outcome.code == 0, outcome.err
    assert visible(output) == visible(Path(plain.output))


def test_ranked_output_does_not_depend_on_the_split(tiny_generator: Path, source: Path, tmp_path: Path) -> None:
    words = ("--input", source, "--clip", tiny_generator, "--keep_best", 2, *FLAGS)
    one = generate(tiny_generator, tmp_path / "one", *words)
    two = generate(tiny_generator, tmp_path / "two", *words, "--rows_per_shard", 2)
    assert images_of(one) == images_of(two)
    assert [row["clip_score"] for row in one.rows()] == [row["clip_score"] for row in two.rows()]
    assert len(one.rows()) == 12


def words(model: Path, source: Path, output: Path) -> list[str]:
    flags = ("--rows_per_shard", 2, "--batch_size", 4, "--threads_per_worker", 1, "--max_error_rate", 1, *FLAGS)
    return [*map(str, ("generate", "--model", model, "--input", source, "--output", output, *flags)), "--device", "cpu"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"key": f"k{n}", "prompt": f"apple {n}"} for n in range(40)]
    return write_prompts(tmp_path_factory.mktemp("many") / "prompts.jsonl", rows)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, tiny_generator: Path, many: Path) -> Path:
    """What one undisturbed run leaves."""
    output = tmp_path_factory.mktemp("quiet") / "out"
    assert run(*words(tiny_generator, many, output)).code == 0
    return output


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "workers"), [(1, "1"), (2, "2")])
def test_a_run_that_is_killed_is_finished_as_if_nothing_had_been(
    tiny_generator: Path, many: Path, quiet: Path, tmp_path: Path, seed: int, workers: str
) -> None:
    output = tmp_path / "out"
    command = words(tiny_generator, many, output)
    number = random.Random(seed).randrange(8, objects(quiet) // 2)
    kill_at_work(command, tmp_path / "temp", output, number, "--workers", workers)
    assert run(*command).code == 0
    assert visible(output) == visible(quiet)
    assert run("verify", output).code == 0


@pytest.mark.slow
def test_two_jobs_at_once_make_one_output(tiny_generator: Path, many: Path, quiet: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    runs = [start(words(tiny_generator, many, output), tmp_path / name) for name in ("a", "b")]
    for process in runs:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    assert snapshot(str(output)).keys() == snapshot(str(quiet)).keys()
    assert visible(output) == visible(quiet)
    assert list(output.rglob(".*")) == []

"""One seed, key and sample make one variation, however a run is spread, cut or resumed, and beside any other rows."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.real_runs import kill_at_work, objects, visible
from tests.support.run_command import SMALL, Outcome, run
from tests.support.vary_runs import pixels, vary, write_images

METHODS = ("latent", "codes", "model")
FLAGS = ("--strength", "0.5", "--images_per_input", "3", "--keep_tokens")
VARIED = ("--guidance_scale", "1", "--top_k", "0")  # else the tiny model, sure of itself, draws some images twice


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("in") / "images.parquet")


def files(outcome: Outcome) -> dict[tuple[str, int], bytes]:
    assert outcome.code == 0, outcome.err
    return {(row["key"], row["sample"]): outcome.read(row["image_path"]) for row in outcome.rows()}


@pytest.mark.parametrize("method", METHODS)
def test_another_split_into_shards_and_another_number_of_variations_move_no_image(
    method: str, source: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    words = ("--input", source, "--method", method, *FLAGS)
    whole = files(vary(tiny_generator, tmp_path / "whole", *words))
    split = vary(tiny_generator, tmp_path / "split", *words, "--rows_per_shard", 2)
    assert len(split.files("data/*.parquet")) == 3
    assert files(split) == whole
    split.check_nothing_lost()
    if method != "model":  # there the number of images decides the shape of the batch
        fewer = files(vary(tiny_generator, tmp_path / "fewer", *words, "--images_per_input", 1))
        assert fewer == {name: data for name, data in whole.items() if name[1] == 0}


@pytest.mark.parametrize("method", METHODS)
def test_an_image_that_is_taken_out_moves_no_other(
    method: str, source: Path, tiny_generator: Path, tmp_path: Path
) -> None:
    words = ("--method", method, *FLAGS)
    rest = pq.read_table(source).slice(3)
    pq.write_table(rest, tmp_path / "rest.parquet")
    whole = files(vary(tiny_generator, tmp_path / "whole", "--input", source, *words))
    assert files(vary(tiny_generator, tmp_path / "out", "--input", tmp_path / "rest.parquet", *words)) == {
        name: data for name, data in whole.items() if name[0] in rest["key"].to_pylist()
    }


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_makes_other_variations(method: str, source: Path, tiny_generator: Path, tmp_path: Path) -> None:
    words = ("--input", source, "--method", method, *FLAGS, *(VARIED if method == "model" else ()))
    one, other = (pixels(vary(tiny_generator, tmp_path / seed, *words, "--seed", seed)) for seed in "01")
    assert not any(np.array_equal(one[name], other[name]) for name in one)


def test_another_strength_into_the_same_folder_is_refused(source: Path, tiny_generator: Path, tmp_path: Path) -> None:
    assert vary(tiny_generator, tmp_path / "out", "--input", source, "--limit", 2).code == 0
    outcome = vary(tiny_generator, tmp_path / "out", "--input", source, "--limit", 2, "--strength", 0.4)
    assert outcome.code == 2
    assert "strength" in outcome.err


def words_of(method: str, model: Path, source: Path, output: Path) -> list[str]:
    flags = ("--method", method, "--rows_per_shard", "1", *SMALL, *FLAGS)
    return [*map(str, ("vary", "--model", model, "--input", source, "--output", output)), *flags]


def test_threads_write_the_same_bytes(source: Path, tiny_generator: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*words_of("codes", tiny_generator, source, one)).code == 0
    threads = ("--direct_running_mode", "multi_threading", "--workers", "2")
    assert run(*words_of("codes", tiny_generator, source, two), *threads).code == 0
    assert visible(two) == visible(one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["latent", "model"])
def test_a_run_that_is_killed_is_finished_as_if_nothing_had_been(
    method: str, tiny_generator: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "images.parquet", rows=20)
    quiet, output = tmp_path / "quiet", tmp_path / "out"
    assert run(*words_of(method, tiny_generator, source, quiet)).code == 0
    command = words_of(method, tiny_generator, source, output)
    kill_at_work(command, tmp_path / "temp", output, random.Random(method).randrange(8, objects(quiet) // 2))
    assert run(*command).code == 0
    assert visible(output) == visible(quiet)
    assert run("verify", output).code == 0

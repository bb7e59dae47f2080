"""A folder of another job that would give the same images says how many, and how long that takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.run_command import Outcome, run
from tests.support.small_jobs import dataset, encode_small

PROMPTS = ("--prompt", "a red apple", "a ghost", "a rocket")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """The best of two images for each of three prompts, which took 40 s."""
    done = generate(tmp_path / "drawn", "--keep_best", 1)
    assert done.code == 0, done.err
    (mark,) = (tmp_path / "drawn" / "_vqbeam" / "stats").iterdir()
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"seconds": 40.0}))
    return tmp_path / "drawn"


def generate(output: Path, *words: object, images: int = 2) -> Outcome:
    flags = (*PROMPTS, "--images_per_prompt", images, "--clip", "emoji", "--device", "cpu", *words)
    return run("generate", *flags, "--threads_per_worker", 1, output=output)


def images(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "images").rglob("*.png")}


def test_more_of_the_best_images_would_be_drawn_again(drawn: Path, tmp_path: Path) -> None:
    refused = generate(drawn, "--keep_best", 2)
    assert refused.code == 2
    assert "keep_best: the folder has 1, this command asks for 2" in refused.err
    batch = json.loads((drawn / "_vqbeam" / "plan.json").read_text())["settings"]["batch_size"]
    assert (
        "What was not kept is not stored, so all is drawn again: 6 images of 3 prompts, about 0:00:40 at the speed of "
        "this folder; the images of both jobs are the same in a new folder, or here with --overwrite, with "
        f"--batch_size {batch}, as here.\n"
    ) in refused.err
    more = generate(tmp_path / "more", "--keep_best", 2, "--batch_size", batch)
    assert more.code == 0, more.err
    assert images(drawn).items() < images(tmp_path / "more").items(), "as it says"


def test_more_images_a_prompt_take_longer(drawn: Path) -> None:
    told = generate(drawn, "--keep_best", 1, images=6).err
    assert "All is made again: 18 images of 3 prompts, about 0:02:00 at the speed of this folder;" in told


def test_shards_of_another_size_give_the_same_rows(tmp_path: Path, tiny_model: Path) -> None:
    source = dataset(tmp_path / "in", 2)
    encode_small(source, tmp_path / "out", tiny_model)
    refused = encode_small(source, tmp_path / "out", tiny_model, "--rows_per_shard", 3)
    assert refused.code == 2
    assert (
        "leave --rows_per_shard out to go on with it.\nWith others, the same images come out in a new folder"
        in refused.err
    )
    assert "and all is done again: 20 images" in refused.err


def test_nothing_is_said_of_jobs_whose_images_differ(drawn: Path, tmp_path: Path) -> None:
    for words in (("--seed", 4, "--keep_best", 2), ("--top_k", 3, "--keep_best", 1)):
        refused = generate(drawn, *words)
        assert "holds the output of another job" in refused.err
        assert "again:" not in refused.err

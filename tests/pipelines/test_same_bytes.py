"""The same bytes, however the work is spread; the same tokens, but for near-ties, at any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines import run as jobs
from tests.support.run_command import Outcome, run
from tests.support.shard_runs import snapshot
from tests.support.small_jobs import SHARDS, dataset, encode_small
from tests.support.vqgan_checkpoints import load_vqgan
from transforms.image_options import ImageOptions
from transforms.images import decode_image

NEAR_TIE = 1e-4  # of the distance to the nearest code


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, source: Path, tiny_model: Path) -> Outcome:
    """One worker, in memory."""
    outcome = encode_small(source, tmp_path_factory.mktemp("plain") / "out", tiny_model)
    assert outcome.code == 0
    return outcome


MODES = [
    pytest.param(["--direct_running_mode", "multi_threading", "--workers", "1"], id="one thread"),
    pytest.param(["--direct_running_mode", "multi_threading", "--workers", "2"], id="two threads"),
    pytest.param(
        ["--direct_running_mode", "multi_processing", "--workers", "1"], id="one process", marks=pytest.mark.slow
    ),
    pytest.param(["--workers", "2"], id="two processes", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("flags", MODES)
def test_encode_writes_the_same_bytes_in_every_mode(
    flags: list[str], plain: Outcome, source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    outcome = encode_small(source, tmp_path / "out", tiny_model, *flags)
    assert outcome.code == 0, outcome.err
    assert_same_data(outcome, plain)


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_decode_writes_the_same_bytes_in_two_threads(layout: str, plain: Outcome, tmp_path: Path) -> None:
    words = ("decode", "--input", f"{plain.output}/data", "--image_layout", layout, "--rows_per_shard", "9")
    words += ("--batch_size", "4", "--threads_per_worker", "1")
    one = run(*words, output=tmp_path / "one")
    two = run(*words, "--direct_running_mode", "multi_threading", "--workers", "2", output=tmp_path / "two")
    assert (one.code, two.code) == (0, 0)
    assert_same_data(two, one)


def test_the_order_of_the_shards_does_not_matter(
    plain: Outcome, source: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "pending_shards", lambda output, shards: [2, 0, 3, 1])
    outcome = encode_small(source, tmp_path / "out", tiny_model)
    assert outcome.code == 0
    assert_same_data(outcome, plain)


def test_the_neighbours_of_a_shard_do_not_matter(
    plain: Outcome, source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    alone = encode_small(source / "2.parquet", tmp_path / "out", tiny_model)
    assert pq.read_table(f"{alone.output}/data/00000.parquet").equals(
        pq.read_table(f"{plain.output}/data/00002.parquet")
    )


def test_the_neighbours_of_a_row_do_not_matter(plain: Outcome, source: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Other rows in its batch, and another position in it."""
    table = pq.read_table(source / "1.parquet")
    pq.write_table(table.take([8, 3, 0]), tmp_path / "few.parquet")
    few = encode_small(tmp_path / "few.parquet", tmp_path / "out", tiny_model)
    codes = {row["key"]: row["encoding"] for row in plain.rows()}
    assert [row["encoding"] for row in few.rows()] == [codes[key] for key in ("k18", "k13", "k10")]


def assert_same_data(one: Outcome, other: Outcome) -> None:
    """Tables, images, tars, rejected rows and counts."""
    first, second = (
        {name: data for name, data in snapshot(outcome.output).items() if "_vqbeam/shards" not in name}
        for outcome in (one, other)
    )
    first.pop("_vqbeam/plan.json")  # the number of workers is in it
    second.pop("_vqbeam/plan.json")
    assert first == second
    assert len([name for name in first if "/stats/" in name]) == SHARDS


def test_tokens_at_other_batch_sizes_are_equal_but_for_near_ties(
    source: Path, tmp_path: Path, tiny_model: Path
) -> None:
    tokens: dict[int, np.ndarray] = {}
    order: dict[int, list[str]] = {}
    for size in (1, 7, 64):
        outcome = encode_small(source, tmp_path / str(size), tiny_model, "--batch_size", str(size))
        rows = outcome.rows()
        order[size] = [row["key"] for row in rows]
        tokens[size] = np.array([row["encoding"] for row in rows])
    assert order[1] == order[7] == order[64]
    margins = relative_margins(source, tiny_model, order[64])
    near_ties = margins < NEAR_TIE
    for size in (1, 7):
        differing = tokens[size] != tokens[64]
        assert not (differing & ~near_ties).any()
        assert differing.sum() <= near_ties.sum() <= 0.01 * differing.size


def relative_margins(source: Path, model: Path, keys: list[str]) -> np.ndarray:
    """How much farther than the nearest code the second nearest is, for each token."""
    images: dict[str, np.ndarray] = {}
    for path in sorted(source.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["key"] in keys:
                images[row["key"]] = decode_image(row["image"], ImageOptions(size=16)).pixels
    network = load_vqgan(model).eval()
    low, high = network.config.pixel_range
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([images[key] for key in keys])).permute(0, 3, 1, 2).float()
        latents = network.latents(pixels * ((high - low) / 255) + low).double()
        distances = torch.cdist(latents.flatten(0, 2), network.quantize.codebook.double()) ** 2
        nearest = distances.topk(2, largest=False).values
    return ((nearest[:, 1] - nearest[:, 0]) / nearest[:, 0]).reshape(len(keys), -1).numpy()

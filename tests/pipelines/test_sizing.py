"""How many rows a shard has by default: some minutes of the machine that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines import cost, machine_speed, sizing
from pipelines.machine_speed import Speed, assumed, speed_here
from tests.support.run_command import run
from tests.support.small_jobs import dataset

ENCODED = 0.717e9  # operations for an image of the embedded model


def on_a_core_of(flops: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two such cores are what is measured."""

    def slow(device: str, dtypes: tuple[str, ...]) -> Speed:
        return Speed(dict.fromkeys(dtypes, flops), memory=1e10, measured=True)

    monkeypatch.setattr(cost, "speed_here", slow)
    monkeypatch.setattr(sizing, "cores", lambda: 2)


def rows_per_shard(tmp_path: Path, *words: object) -> int:
    """Of a plan; what comes of its job does not matter."""
    outcome = run(*words, "--device", "cpu", output=tmp_path / "out")
    plan = json.loads(outcome.read("_vqbeam/plan.json"))
    assert plan["settings"]["threads_per_worker"] == 2
    return int(plan["fingerprint"]["rows_per_shard"])


def test_a_slower_machine_gets_shards_of_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path / "in", 1)
    found = []
    for number, flops in enumerate((1e11, 1e9, 1e7)):
        on_a_core_of(flops, monkeypatch)
        found.append(rows_per_shard(tmp_path / str(number), "encode", "--input", source))
    most, middle, fewest = found
    assert most == 64 * 2**8, "the nearest power of two to 120 s of 2 cores with 0.015 s for an image"
    assert middle == 64 * 2**2
    assert fewest == 64, "a whole batch is the least"


@pytest.mark.parametrize("flops", [1e8, 1e9, 1e10])
@pytest.mark.parametrize("command", ["encode", "generate", "vary"])
def test_a_shard_lasts_some_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, flops: float
) -> None:
    on_a_core_of(flops, monkeypatch)
    source = ("--prompt", "a red apple") if command == "generate" else ("--input", dataset(tmp_path / "in", 1))
    rows = rows_per_shard(tmp_path, command, *source, "--batch_size", 2)
    least = rows * ENCODED / flops / 2  # of the arithmetic of one network, if it were as fast as one convolution
    assert least <= 170
    assert rows % 2 == 0
    assert rows & (rows - 1) == 0


def test_rows_of_several_images_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_core_of(1e9, monkeypatch)
    words = ("generate", "--prompt", "a red apple", "--batch_size", 8)
    one = rows_per_shard(tmp_path / "one", *words)
    assert rows_per_shard(tmp_path / "four", *words, "--images_per_prompt", 4) == one // 4


def test_what_is_measured_is_a_speed_and_leaves_the_threads_of_torch() -> None:
    threads = torch.get_num_threads()
    speed = speed_here("cpu", ("float32", "bfloat16"))
    assert torch.get_num_threads() == threads
    assert speed.measured
    assert set(speed.flops) == {"float32", "bfloat16"}
    assert 1e8 < speed.flops["float32"] < 1e13
    assert speed_here("cpu", ("float32",)).flops["float32"] == speed.flops["float32"], "measured once a process"


def test_nothing_is_measured_for_workers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(machine_speed, "_seconds")
    assert cost.speed_of(False, "cpu", "float32") == assumed("cpu", ("float32",))
    assert cost.speed_of(False, "cuda", "bfloat16").flops["bfloat16"] == machine_speed.ASSUMED_GPU

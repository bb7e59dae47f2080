"""How convolutions are computed is in the plan: new ones take what is faster, others go on as they began."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from models.vqgan import codec
from models.winograd import layers
from tests.support.small_jobs import dataset, encode_small
from transforms.ledger.plan import Plan, load_plan


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many convolutions each codec replaced; that of a tiny model counts as large."""
    counts: list[int] = []

    def counted(network: nn.Module, threads: int) -> int:
        counts.append(layers.use_winograd(network, threads))
        return counts[-1]

    monkeypatch.setattr(layers, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(codec, "use_winograd", counted)
    return counts


def plan_of(output: Path) -> Plan:
    plan = load_plan(str(output))
    assert plan is not None
    return plan


def test_a_new_plan_takes_winograds_algorithm(tmp_path: Path, tiny_model: Path, used: list[int]) -> None:
    source, output = dataset(tmp_path / "in", 1), tmp_path / "out"
    assert encode_small(source, output, tiny_model, "--device", "cpu").code == 0
    assert plan_of(output).fingerprint["convolutions"] == "winograd"
    assert used
    assert min(used) > 0


def test_small_networks_and_other_dtypes_say_nothing_of_it(tmp_path: Path, tiny_model: Path, used: list[int]) -> None:
    source, output = dataset(tmp_path / "in", 1), tmp_path / "out"
    assert encode_small(source, output, tiny_model, "--device", "cpu", "--dtype", "bfloat16").code == 0
    assert "convolutions" not in plan_of(output).fingerprint
    assert plan_of(output).choice("convolutions") == "direct"
    assert used == []


def test_a_stored_plan_without_it_goes_on_directly(
    tmp_path: Path, tiny_model: Path, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = dataset(tmp_path / "in", 2), tmp_path / "out"
    with monkeypatch.context() as then:
        then.setattr(layers, "LEAST_FLOPS", 1e10)
        assert encode_small(source, output, tiny_model, "--device", "cpu").code == 0
    path = output / "data" / "00001.parquet"
    before = path.read_bytes()
    path.unlink()
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    assert encode_small(source, output, tiny_model, "--device", "cpu").code == 0
    assert path.read_bytes() == before
    assert used == []

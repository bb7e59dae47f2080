"""What planning is asked for, from the flags of a command and those that are Beam's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.weights import checkpoint as checkpoints
from models.weights.checkpoint import weights_id
from models.weights.checks import Leaves
from pipelines import sizing
from tests.support.run_command import run
from tests.support.small_jobs import dataset, encode_small
from tests.support.tiny_generator import write_prompts
from tests.support.vqgan_checkpoints import TINY, random_vqgan, write_vqgan_jax
from transforms import storage
from transforms.inputs import local
from transforms.inputs.provenance import token_provenance


@pytest.mark.parametrize("flag", ["--workers", "--direct_num_workers"])
def test_workers_share_the_cores_by_whichever_name_they_are_asked_for(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(sizing, "cores", lambda: 8)
    source = write_prompts(tmp_path / "prompts.jsonl", [{"prompt": " "}])  # nothing to draw
    words = ("--model", tiny_generator, "--device", "cpu", "--direct_running_mode", "multi_threading")
    outcome = run("generate", "--input", source, *words, flag, "2", output=tmp_path / "out")
    assert "nothing was written" in outcome.out
    settings = json.loads(outcome.read("_vqbeam/plan.json"))["settings"]
    assert (settings["workers"], settings["threads_per_worker"]) == (2, 4)


@pytest.mark.parametrize("command", ["encode", "vary"])
def test_the_input_of_a_new_job_is_listed_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    source = dataset(tmp_path / "in", files=1)
    asked: list[str] = []
    walk = local.walk

    def counted(pattern: str, leave: local.Leave) -> Iterator[storage.FileInfo | local.Left]:
        asked.append(pattern)
        return walk(pattern, leave)

    monkeypatch.setattr(local, "walk", counted)
    outcome = run(command, "--input", source, "--model", tiny_model, output=tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert asked.count(str(source)) == 1


def test_weights_that_carry_no_fingerprint_are_read_for_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def counted(leaves: Leaves) -> str:
        computed.append(weights_id(leaves))
        return computed[-1]

    monkeypatch.setattr(checkpoints, "weights_id", counted)
    model = write_vqgan_jax(tmp_path / "model", random_vqgan().state_dict(), TINY)
    outcome = encode_small(dataset(tmp_path / "in", files=1), tmp_path / "out", model)
    assert outcome.code == 0, outcome.err
    made_by = token_provenance(f"{outcome.output}/data/00000.parquet")
    assert made_by is not None
    assert [made_by["weights_id"]] == computed

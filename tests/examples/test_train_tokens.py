"""The example learns, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from examples.train_tokens import train as example
from tests.support.paths import SAMPLE
from tests.support.run_command import SMALL, run


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("out") / "tokens"
    source = ("encode", "--input", SAMPLE / "emoji-00000.tar", "--model", "emoji", "--limit", 64)
    assert run(*source, *SMALL, output=output).code == 0
    return str(output)


def test_the_loss_falls(tokens: str, tmp_path: Path) -> None:
    losses = example.train(tokens, tmp_path, steps=25)
    assert losses[0] > 6.5
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_a_stopped_run_goes_on_with_the_next_rows(tokens: str, tmp_path: Path) -> None:
    whole = example.train(tokens, tmp_path / "whole", steps=5)
    parts = example.train(tokens, tmp_path / "parts", steps=2) + example.train(tokens, tmp_path / "parts", steps=5)
    assert parts == whole
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    for name, tensor in states[0]["painter"].items():
        assert torch.equal(tensor, states[1]["painter"][name])

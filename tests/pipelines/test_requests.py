"""What planning is asked for, from the flags of a command and those that are Beam's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import planning
from tests.fixtures_tiny_generator import write_prompts
from tests.run_command import run

pytest_plugins = ("tests.fixtures_tiny_generator",)


@pytest.mark.parametrize("flag", ["--workers", "--direct_num_workers"])
def test_workers_share_the_cores_by_whichever_name_they_are_asked_for(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(planning, "cores", lambda: 8)
    source = write_prompts(tmp_path / "prompts.jsonl", [{"prompt": " "}])  # nothing to draw
    words = ("--model", tiny_generator, "--device", "cpu", "--direct_running_mode", "multi_threading")
    outcome = run("generate", "--input", source, *words, flag, "2", output=tmp_path / "out")
    assert "nothing was written" in outcome.out
    settings = json.loads(outcome.read("_vqbeam/plan.json"))["settings"]
    assert (settings["workers"], settings["threads_per_worker"]) == (2, 4)

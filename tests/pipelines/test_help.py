"""The examples that end the help of each command, as a reader would run them."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.command import COMMANDS, find
from pipelines.parsing import parser_of
from tests.support.images import encoded, scene
from tests.support.paths import GOLDEN, ROOT, SAMPLE
from tests.support.shell import run_in_bash

WIDTH = 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_two_examples_that_fit_a_terminal(name: str) -> None:
    command = find(name)
    *_, title, first, second = parser_of(name, command).format_help().splitlines()
    assert title == "examples:"
    assert [first.strip(), second.strip()] == list(command.examples)
    assert all(line.startswith(f"  vqbeam {name} ") and len(line) <= WIDTH for line in (first, second))


@pytest.mark.slow
def test_the_examples_of_all_commands_run_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLE / "emoji-00000.tar", tmp_path / "pairs")
    for name in ("photo.png", "photos/a.png", "photos/b.png"):
        (tmp_path / name).write_bytes(encoded(scene(80, 64), "PNG"))
    (tmp_path / "prompts.txt").write_text("a red apple\na ghost on a black background\n")
    shutil.copytree(GOLDEN / "vqgan_small", tmp_path / "vqgan_imagenet_f16_16384")

    def vqbeam(argv: list[str]) -> int:
        return main([word.replace("gs://my-bucket/", "") for word in argv])

    here = (name for name in COMMANDS if name != "jobs")  # it asks a service: `docs/runners.md` has it, and its test
    script = "\n".join(chain.from_iterable(find(name).examples for name in here))
    done = run_in_bash(script, vqbeam, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_overview_says_what_an_installation_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "3.4 GB of 5.3 GB" in shown
    assert "without a gpu, install torch's cpu build first" in shown.lower()
    assert "5.3 GB, 3.4 GB of it CUDA" in (ROOT / "README.md").read_text(), "the same figures"

"""What a command has loaded and said by when: sets of modules and lines, which no other load on the machine moves."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines import stages
from pipelines.lean_imports import OPTIONAL, without_optional
from tests.support.paths import ROOT
from tests.support.run_command import SMALL, run
from tests.support.small_jobs import dataset

LOADED = """
import atexit, json, sys
from pipelines.__main__ import main
atexit.register(lambda: print(json.dumps([*sys.modules])))
main()
"""
SLOW = {"torch", "apache_beam", "transformers", "numba", "pandas", *OPTIONAL}


def loaded(*words: object) -> tuple[int, set[str]]:
    """The exit code of a command in a process of its own, and the modules that it holds then."""
    command = [sys.executable, "-c", LOADED, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = next(line for line in done.stdout.splitlines() if line.startswith("["))  # the supervisor's comes later
    return done.returncode, set(json.loads(told))


def test_a_job_that_is_refused_for_a_changed_flag_loads_neither_torch_nor_beam(
    tmp_path: Path, tiny_model: Path, tiny_generator: Path
) -> None:
    tokens = tmp_path / "tokens"
    jobs = {
        "encode": ("--input", dataset(tmp_path), "--output", tokens, "--model", tiny_model),
        "decode": ("--input", tokens / "data/*.parquet", "--output", tmp_path / "images"),
        "generate": (
            "--prompt",
            "a",
            "--output",
            tmp_path / "drawn",
            "--model",
            tiny_generator,
            "--images_per_prompt",
            1,
        ),
    }
    for name, flags in jobs.items():
        assert run(name, *flags, *SMALL).code == 0
        code, modules = loaded(name, *flags, *SMALL, "--rows_per_shard", 3)
        assert (code, modules & SLOW) == (2, set()), name


def test_a_local_job_loads_nothing_that_beam_can_do_without(tmp_path: Path, tiny_model: Path) -> None:
    files = ("--input", dataset(tmp_path), "--output", tmp_path / "out")
    code, modules = loaded("encode", *files, "--model", tiny_model, *SMALL)
    assert (code, modules & {*OPTIONAL} - {"IPython"}) == (0, set())  # which Beam looks for again as it ends
    assert {"torch", "apache_beam"} <= modules


def test_what_beam_does_not_find_is_found_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pymongo", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", here := type(sys)("boto3"))
    with without_optional():
        with pytest.raises(ModuleNotFoundError):
            __import__("pymongo")
        assert __import__("boto3") is here
    assert sys.modules.get("pymongo", here) is not None


def test_the_first_line_comes_before_anything_slow_is_loaded() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pipelines", "encode", "--no_such_flag"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stderr
    before, line, _ = shown.partition("vqbeam encode: starting\n")
    assert line
    imported = {row.rpartition("|")[2].strip() for row in before.splitlines()}
    assert not {"numpy", "pyarrow", "PIL", "fsspec", *SLOW} & imported


@pytest.mark.slow
def test_a_refusal_takes_less_than_half_of_what_a_job_of_few_rows_does(tmp_path: Path, tiny_model: Path) -> None:
    flags = ("encode", "--input", dataset(tmp_path), "--output", tmp_path / "out", "--model", tiny_model, *SMALL)

    def seconds(*more: object) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        loaded(*flags, *more)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    job = seconds()
    assert seconds("--rows_per_shard", 3) < job / 2


class Screen(io.StringIO):
    """A stderr that a test can wait on."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: terminal  # type: ignore[method-assign]

    def wait_for(self, text: str) -> None:
        while text not in self.getvalue():
            threading.Event().wait(0.005)


@pytest.mark.parametrize(("terminal", "more"), [(True, "  0 s\r"), (False, "Opening, 0 s\n")])
def test_a_stage_is_told_at_once_and_again_while_it_lasts(
    terminal: bool, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(sys, "stderr", screen := Screen(terminal))
    with stages.stage("Opening"):
        assert screen.getvalue().startswith("Opening\n")
        screen.wait_for(more)


def test_a_short_stage_is_told_once_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Screen(terminal=False))
    with stages.stage("Looking", short=True):
        pass
    assert screen.getvalue() == ""
    monkeypatch.setattr(stages, "SILENT_SECONDS", 0.01)
    with stages.stage("Looking", short=True):
        screen.wait_for("Looking\nLooking, 0 s\n")

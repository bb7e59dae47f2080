"""Stopping real runs with real signals: the exit code, what is printed, and that nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import stopping
from tests.support.paths import ROOT
from tests.support.real_runs import session

PROGRAM = ROOT / "tests" / "support" / "polling_run.py"
MODES = {
    "in_memory": ["--workers", "1"],
    "multi_threading": ["--workers", "2", "--direct_running_mode=multi_threading"],
    "multi_processing": ["--workers", "2"],
}
PATIENCE = 120  # seconds


@dataclass
class Run:
    """A run of `polling_run.py` in a new session, as a terminal would start it."""

    folder: Path
    process: subprocess.Popen[str]

    def wait_for(self, pattern: str) -> list[Path]:
        """Waits until files of that name are there."""
        deadline = time.monotonic() + PATIENCE
        while not (found := list(self.folder.glob(pattern))):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {pattern} in {os.listdir(self.folder)}"
            time.sleep(0.02)
        return found

    def press_ctrl_c(self) -> None:
        """Every process of the session gets SIGINT, as from a terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, code: int) -> str:
        """Waits for a clean end with this exit code: no processes, scratch or traceback left; gives stderr."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code
        assert session(self.process.pid) == []
        assert list(self.folder.glob("vqbeam-*")) == []
        assert "Traceback" not in errors
        return errors


@pytest.fixture
def start(tmp_path) -> Iterator:
    runs: list[Run] = []

    def start(*flags: str) -> Run:
        argv = [sys.executable, str(PROGRAM), "poll", "--output", str(tmp_path), *flags]
        process = subprocess.Popen(
            argv,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        runs.append(Run(tmp_path, process))
        return runs[-1]

    yield start
    for run in runs:
        for pid in session(run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.process.wait()


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_drops_what_is_in_flight_and_leaves_nothing(start, mode):
    run = start(*MODES[mode], "--overwrite")
    run.wait_for("began-*")
    run.press_ctrl_c()
    errors = run.end(130)
    assert list(run.folder.glob("dropped-*"))
    assert not list(run.folder.glob("ended-*"))
    assert errors.endswith(f"to resume:\n  vqbeam poll --output {run.folder} {' '.join(MODES[mode])}\n")


def test_a_signal_that_comes_while_the_first_is_taken_is_its_echo(tmp_path, monkeypatch, capsys):
    stop = stopping.StopSignals(str(tmp_path), grace=100)
    clock, calls = time.monotonic, iter(range(1000))

    def interrupted_clock() -> float:  # Python runs a handler between any two calls of another
        if next(calls) < 2:
            stop.take(signal.SIGINT, None)
        return clock()

    monkeypatch.setattr(stopping.time, "monotonic", interrupted_clock)
    stop.take(signal.SIGINT, None)
    assert stop.number == signal.SIGINT
    assert not stop.overdue()
    assert capsys.readouterr().err.count("Stopping") == 1


def test_an_echo_that_comes_after_the_pipeline_has_ended_does_not_unwind(tmp_path):
    with stopping.interruptible():
        with stopping.handled(dict.fromkeys(stopping.SIGNALS, stopping.StopSignals(str(tmp_path), 100).take)):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stopping.interruptible():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_sigterm_stops_workers_too_and_is_exit_code_143(start):
    run = start(*MODES["multi_processing"])
    run.wait_for("began-*")
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGTERM)  # as `timeout` does; no second request
    run.end(143)
    assert list(run.folder.glob("dropped-*"))


@pytest.mark.parametrize("mode", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.slow)])
def test_workers_that_do_not_listen_are_ended_after_the_time_of_grace(start, mode):
    run = start(*MODES[mode], "--deaf", "--grace", "1")
    run.wait_for("began-*")
    run.press_ctrl_c()
    run.end(130)


def test_a_second_ctrl_c_ends_workers_at_once(start):
    run = start(*MODES["in_memory"], "--deaf")
    run.wait_for("began-*")
    run.press_ctrl_c()
    while run.process.poll() is None:  # what follows the first within a second is taken for its echo
        time.sleep(0.1)
        with suppress(ProcessLookupError):
            run.press_ctrl_c()
    run.end(130)


def test_an_interruption_while_planning_is_clean(start):
    run = start("--plan_forever")
    run.wait_for("planning")
    run.press_ctrl_c()
    assert "vqbeam poll --output" in run.end(130)


def test_sigterm_while_planning_is_exit_code_143(start):
    run = start("--plan_forever")
    run.wait_for("planning")
    run.process.send_signal(signal.SIGTERM)
    run.end(143)


@pytest.mark.slow
def test_workers_of_a_killed_launcher_end_and_the_next_run_sweeps_up(start):
    run = start(*MODES["multi_processing"])
    run.wait_for("began-*")
    run.process.kill()
    run.process.wait()
    deadline = time.monotonic() + PATIENCE
    while session(run.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(list(run.folder.glob("vqbeam-*"))) == 1
    (run.folder / "finish").touch()
    start().end(0)


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_the_run_and_names_it(start):
    run = start(*MODES["multi_processing"])
    began = run.wait_for("began-*")[0]
    worker = int(re.fullmatch(r"began-\d+-(\d+)", began.name)[1])
    os.kill(worker, signal.SIGKILL)
    assert f"worker process {worker} ended abruptly" in run.end(1)

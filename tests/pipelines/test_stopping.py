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

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("polling_run.py")
MODES = {
    "in_memory": ["--workers", "1"],
    "multi_threading": ["--workers", "2", "--direct_running_mode=multi_threading"],
    "multi_processing": ["--workers", "2"],
}
PATIENCE = 120  # seconds


@dataclass
class Run:
    """A run of `polling_run.py` in a session of its own, as a terminal would start it."""

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

    def end(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def processes_left(self) -> list[int]:
        """Live processes of the session; dead ones that nobody has collected yet do not count."""
        left = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(session) == self.process.pid and state != "Z":
                left.append(int(stat.parent.name))
        return left

    def scratch_left(self) -> list[Path]:
        return list(self.folder.glob("vqbeam-*"))


@pytest.fixture
def start(tmp_path) -> Iterator:
    runs: list[Run] = []

    def start(*flags: str) -> Run:
        argv = [sys.executable, str(PROGRAM), "poll", "--folder", str(tmp_path), *flags]
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
        for pid in run.processes_left():
            os.kill(pid, signal.SIGKILL)
        run.process.wait()


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_drops_what_is_in_flight_and_leaves_nothing(start, mode):
    run = start(*MODES[mode], "--overwrite")
    run.wait_for("began-*")
    run.press_ctrl_c()
    code, errors = run.end()
    assert code == 130
    assert run.processes_left() == []
    assert run.scratch_left() == []
    assert list(run.folder.glob("dropped-*"))
    assert not list(run.folder.glob("ended-*"))
    assert "Traceback" not in errors
    assert errors.endswith(f"goes on with the rest:\n  vqbeam poll --folder {run.folder} {' '.join(MODES[mode])}\n")


@pytest.mark.slow
def test_sigterm_stops_workers_too_and_is_exit_code_143(start):
    run = start(*MODES["multi_processing"])
    run.wait_for("began-*")
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGTERM)  # as `timeout` does; no second request
    code, errors = run.end()
    assert code == 143
    assert run.processes_left() == []
    assert run.scratch_left() == []
    assert list(run.folder.glob("dropped-*"))
    assert "Traceback" not in errors


@pytest.mark.parametrize("mode", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.slow)])
def test_workers_that_do_not_listen_are_ended_after_the_time_of_grace(start, mode):
    run = start(*MODES[mode], "--deaf", "--grace", "1")
    run.wait_for("began-*")
    run.press_ctrl_c()
    code, errors = run.end()
    assert code == 130
    assert run.processes_left() == []
    assert run.scratch_left() == []
    assert "Traceback" not in errors


def test_a_second_ctrl_c_ends_workers_at_once(start):
    run = start(*MODES["in_memory"], "--deaf")
    run.wait_for("began-*")
    run.press_ctrl_c()
    while run.process.poll() is None:  # what follows the first within a second is taken for its echo
        time.sleep(0.1)
        with suppress(ProcessLookupError):
            run.press_ctrl_c()
    assert run.end()[0] == 130
    assert run.scratch_left() == []


def test_an_interruption_while_planning_is_clean(start):
    run = start("--plan_forever")
    run.wait_for("planning")
    run.press_ctrl_c()
    code, errors = run.end()
    assert code == 130
    assert run.scratch_left() == []
    assert "Traceback" not in errors
    assert "vqbeam poll --folder" in errors


def test_sigterm_while_planning_is_exit_code_143(start):
    run = start("--plan_forever")
    run.wait_for("planning")
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 143
    assert run.scratch_left() == []


@pytest.mark.slow
def test_workers_of_a_killed_launcher_end_and_the_next_run_sweeps_up(start):
    run = start(*MODES["multi_processing"])
    run.wait_for("began-*")
    run.process.kill()
    run.process.wait()
    deadline = time.monotonic() + PATIENCE
    while run.processes_left():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(run.scratch_left()) == 1
    (run.folder / "finish").touch()
    assert start().end()[0] == 0
    assert run.scratch_left() == []


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_the_run_and_names_it(start):
    run = start(*MODES["multi_processing"])
    began = run.wait_for("began-*")[0]
    worker = int(re.fullmatch(r"began-\d+-(\d+)", began.name)[1])
    os.kill(worker, signal.SIGKILL)
    code, errors = run.end()
    assert code == 1
    assert f"worker process {worker} ended abruptly" in errors
    assert "Traceback" not in errors
    assert run.processes_left() == []
    assert run.scratch_left() == []

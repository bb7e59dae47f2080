"""A command that the system ends is begun again, by real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from pipelines import supervisor

def work(argv):
    tries = Path(argv[0])
    number = len(tries.read_text().splitlines()) if tries.exists() else 0
    with tries.open("a") as file:
        print(os.getpid(), *argv[1:], file=file)
    {work}

sys.exit(supervisor.supervised(sys.argv[1:], work))
"""
PATIENCE = 60  # seconds


def start(work: str, tries: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(work=work), str(tries), *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def lines(path: Path) -> list[str]:
    """Waits for the first line, if it must."""
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text().splitlines()


KILLED = "supervisor.tell_pending({pending}); number < {times} and os.kill(os.getpid(), {signal}); return 3"


def test_a_process_that_is_ended_by_the_system_is_begun_again_without_overwriting(tmp_path: Path) -> None:
    work = KILLED.format(pending="9 - number", times=2, signal="[signal.SIGKILL, signal.SIGSEGV][number]")
    code, errors = ended(start(work, tmp_path / "tries", "--overwrite", "--limit", "3"))
    assert code == 3
    words = [line.split()[1:] for line in lines(tmp_path / "tries")]
    assert words == [["--overwrite", "--limit", "3"], ["--limit", "3"], ["--limit", "3"]]
    assert "ended by signal 9 (SIGKILL). Beginning again" in errors
    assert "ended by signal 11 (SIGSEGV). Beginning again" in errors


def test_ends_without_one_more_shard_done_are_counted_and_then_it_is_given_up(tmp_path: Path) -> None:
    work = KILLED.format(pending="9 - (number > 3)", times=100, signal="signal.SIGKILL")
    code, errors = ended(start(work, tmp_path / "tries"))
    assert code == 128 + 9
    assert len(lines(tmp_path / "tries")) == 4 + 10
    assert "for the 10th time without one more shard done: this is given up" in errors
    assert "--batch_size" in errors


def test_progress_lets_it_go_on(tmp_path: Path) -> None:
    work = KILLED.format(pending="50 - number", times=14, signal="signal.SIGKILL")
    assert ended(start(work, tmp_path / "tries"))[0] == 3


def test_an_end_before_the_work_is_told_and_not_tried_again(tmp_path: Path) -> None:
    code, errors = ended(start("os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "tries"))
    assert code == 128 + 9
    assert len(lines(tmp_path / "tries")) == 1
    assert "ended by signal 9 (SIGKILL); if memory is short" in errors


def test_a_process_that_lost_a_worker_is_begun_again(tmp_path: Path) -> None:
    work = "supervisor.tell_pending(5); return supervisor.code_of_lost_worker() if number == 0 else 0"
    code, errors = ended(start(work, tmp_path / "tries"))
    assert code == 0
    assert "lost a worker. Beginning again" in errors


def test_exit_codes_and_wishes_to_end_are_passed_on(tmp_path: Path) -> None:
    assert ended(start("supervisor.tell_pending(5); return 2", tmp_path / "a")) == (2, "")
    wish = "supervisor.tell_pending(5); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    assert ended(start(wish, tmp_path / "b")) == (128 + 15, "")
    assert len(lines(tmp_path / "b")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_supervisor_reaches_the_work(tmp_path: Path, number: int) -> None:
    handler = f"signal.signal({int(number)}, lambda *a: sys.exit(99))"
    process = start(f"{handler}; print(file=tries.open('a')); time.sleep(60)", tmp_path / "tries")
    while len(lines(tmp_path / "tries")) < 2:
        time.sleep(0.02)
    process.send_signal(number)
    assert ended(process) == (99, "")


def test_the_work_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    process = start("time.sleep(60)", tmp_path / "tries")
    child = int(lines(tmp_path / "tries")[0])
    process.kill()
    process.wait()
    deadline = time.monotonic() + PATIENCE
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_work_may_be_interrupted_and_only_it_decides(tmp_path: Path) -> None:
    work = "signal.signal(signal.SIGINT, lambda *a: os._exit(130)); print(file=tries.open('a')); time.sleep(60)"
    process = start(work, tmp_path / "tries")
    while len(lines(tmp_path / "tries")) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert ended(process) == (130, "")

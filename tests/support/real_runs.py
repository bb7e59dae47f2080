"""Runs in other processes, for tests that end them with real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.shard_runs import snapshot

PLAN_FILES = ("_vqbeam/plan.json", "_vqbeam/shards.parquet")
PATIENCE = 400  # seconds


def start(words: list[str], temp: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *words, "--temp_dir", str(temp), *flags]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)


def kill_at_work(words: list[str], temp: Path, output: Path, number: int, *flags: str) -> None:
    """Starts a run, and kills all its processes once the output has `number` objects."""
    process = start(words, temp, *flags)
    wait_for_objects(process, output, number)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was killed in its work"


def objects(output: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(output))


def wait_for_objects(process: subprocess.Popen[str], output: Path, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while objects(output) < number and process.poll() is None:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.002)  # or the wait takes a core from the run


def session(leader: int) -> list[int]:
    """Live processes of a run; dead ones that nobody has collected yet do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text(encoding="ascii").split()]


def descendants(pid: int) -> dict[int, list[str]]:
    """The processes that a process and those below it have started, with their command lines."""
    found: dict[int, list[str]] = {}
    for child in children(pid):
        words = Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8").split("\0")
        found |= {child: words, **descendants(child)}
    return found


def visible(output: Path) -> dict[str, bytes]:
    """What a run leaves, without the plan, which holds the number of workers."""
    return {name: data for name, data in snapshot(str(output)).items() if name not in PLAN_FILES}

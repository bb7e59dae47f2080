"""Jobs whose workers are processes of their own on this machine, one of them killed: made good, or resumed to the same
bytes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipelines.engine_errors import LOST_WORKER
from tests.support.paths import ROOT
from tests.support.real_runs import PATIENCE, descendants, session, start
from tests.support.run_command import SMALL, Outcome
from tests.support.small_jobs import dataset, encode_small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS = 12
BEAMS_WORKER = "apache_beam.runners.worker.sdk_worker_main"
EMBEDDED = (
    "--runner=PortableRunner",
    "--job_endpoint=embed",
    "--environment_type=beam:env:harness_subprocess_python:v1",
    f"--environment_config={sys.executable} -m {BEAMS_WORKER}",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("images"), SHARDS)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, images: Path, tiny_model: Path) -> dict[str, bytes]:
    """What a run in this process writes."""
    outcome = encode_small(images, tmp_path_factory.mktemp("here") / "out", tiny_model)
    assert outcome.code == 0
    return outcome.data()


def run_and_kill_a_worker(words: list[str], temporary: Path, output: Path, program: str) -> tuple[int, str]:
    """The exit code and the errors of a run; the first of its processes that is a `program` is killed after a shard."""
    process = start(words, temporary)
    deadline = time.monotonic() + PATIENCE
    while not list(output.glob("_vqbeam/stats/*")):
        assert process.poll() is None, "it ended before its first shard"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = [pid for pid, command in descendants(process.pid).items() if program in command[1:3]]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert session(process.pid) == []
    return process.returncode, errors


def words(images: Path, model: Path, output: Path, *flags: str) -> list[str]:
    job = ["encode", "--input", images, "--model", model, "--output", output, "--rows_per_shard", "10", *SMALL, *flags]
    return list(map(str, job))


def test_the_portable_runner_without_its_worker_fails_in_one_line_and_the_same_command_resumes(
    tmp_path: Path, images: Path, tiny_model: Path, here: dict[str, bytes]
) -> None:
    output = tmp_path / "out"
    job = words(images, tiny_model, output, *EMBEDDED)
    code, errors = run_and_kill_a_worker(job, tmp_path / "temporary", output, BEAMS_WORKER)
    assert code == 1
    assert f"\nPortableRunner: {LOST_WORKER}. Finished shards are kept; the same command resumes\n" in errors
    assert "Traceback" not in errors
    assert 0 < len(list(output.glob("_vqbeam/stats/*"))) < SHARDS
    again = encode_small(images, output, tiny_model, *EMBEDDED)
    assert again.code == 0, again.err
    assert again.data() == here


def test_a_local_job_begins_again_without_the_worker_that_was_killed(
    tmp_path: Path, images: Path, tiny_model: Path, here: dict[str, bytes]
) -> None:
    output = tmp_path / "out"
    job = words(images, tiny_model, output, "--direct_running_mode", "multi_processing", "--workers", "2")
    program = str(ROOT / "pipelines" / "local_worker.py")
    code, errors = run_and_kill_a_worker(job, tmp_path / "temporary", output, program)
    assert code == 0, errors
    assert errors.count("ended abruptly") == 1
    assert "The process lost a worker. Beginning again; finished shards are kept\n" in errors
    assert "Traceback" not in errors
    assert Outcome(code, str(output), "", errors).data() == here

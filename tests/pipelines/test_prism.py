"""Every command on Prism gives the bytes of the in-process run: in this process, and with workers in another."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.prism import PATIENCE, PRISM, prism_server, worker_pool
from tests.support.real_runs import children, start, wait_for_objects
from tests.support.run_command import SMALL, Outcome, run
from tests.support.small_jobs import encode_small

pytestmark = [
    pytest.mark.runners,
    pytest.mark.skipif(PRISM is None, reason="no Prism: `make test-runners` builds it where there is Go"),
]
HERE = ("--runner=PrismRunner", f"--prism_location={PRISM}")


@pytest.mark.parametrize("command", ["encode", "decode", "generate", "vary", "rank"])
def test_every_command_gives_the_same_bytes(tmp_path, engine_job, command):
    job = engine_job(command)
    here = run(command, *job, output=tmp_path / "here")
    there = run(command, *job, *HERE, output=tmp_path / "there")
    assert (here.code, there.code) == (0, 0), here.err + there.err
    assert here.data() == there.data() != {}
    assert len(there.marks()) > 1
    assert "Traceback" not in there.err


def test_a_killed_worker_of_a_job_server_fails_the_job_and_the_same_command_resumes(
    tmp_path, engine_images, tiny_model
):
    here = encode_small(engine_images, tmp_path / "here", tiny_model, "--rows_per_shard", "5")
    with prism_server() as endpoint, worker_pool() as (pool, pool_pid):
        flags = ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--environment_type=EXTERNAL"]
        flags += [f"--environment_config={pool}", "--rows_per_shard", "5"]
        killer = threading.Thread(target=kill_at_work, args=(pool_pid, tmp_path / "there"))
        killer.start()
        there = encode_small(engine_images, tmp_path / "there", tiny_model, *flags)
        killer.join()
        assert there.code == 1, there.err
        assert "Traceback" not in there.err
        assert there.err.count("the same command resumes") == 1
        there = encode_small(engine_images, tmp_path / "there", tiny_model, *flags)
        assert there.code == 0, there.err
    assert here.data() == there.data()


def test_of_two_jobs_of_a_server_the_one_with_a_killed_worker_fails_and_the_other_goes_on(
    tmp_path, engine_images, tiny_model
):
    """A job has one worker process: Prism starts one for each environment, and ours have one environment."""
    here = encode_small(engine_images, tmp_path / "here", tiny_model, "--rows_per_shard", "1")
    with prism_server() as endpoint, worker_pool() as (pool, pool_pid), worker_pool() as (other_pool, _):
        flags = ("--runner=PortableRunner", f"--job_endpoint={endpoint}", "--environment_type=EXTERNAL")
        words = ["encode", "--input", engine_images, "--model", tiny_model, *SMALL, "--rows_per_shard", "1"]
        other_words = [*words, "--output", tmp_path / "other", *flags, f"--environment_config={other_pool}"]
        other = start(list(map(str, other_words)), tmp_path / "temporary")
        wait_for_objects(other, tmp_path / "other", 1)
        killer = threading.Thread(target=kill_at_work, args=(pool_pid, tmp_path / "there"))
        killer.start()
        words = [*words, *flags, f"--environment_config={pool}"]
        there = run(*words, output=tmp_path / "there")
        killer.join()
        _, errors = other.communicate(timeout=PATIENCE)
        assert other.returncode == 0, errors
        assert there.code == 1, there.err
        assert there.err.count("the same command resumes") == 1
        there = run(*words, output=tmp_path / "there")
    assert there.code == 0, there.err
    assert here.data() == there.data() == Outcome(0, str(tmp_path / "other"), "", "").data()


def kill_at_work(pool: int, output: Path) -> None:
    """Kill the worker of a pool once it is at a shard."""
    deadline = time.monotonic() + 60
    while not list((output / "_vqbeam" / "attempts").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in children(pool):
        os.kill(pid, signal.SIGKILL)


def test_ctrl_c_cancels_the_job_and_ends_the_server_that_beam_started(tmp_path, engine_images, tiny_model):
    """Whether it was in time decides between the two ends; neither leaves a process."""
    before = set(children(os.getpid()))
    from pipelines.__main__ import _as_process

    def press() -> None:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out" / "_vqbeam" / "attempts").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    flags = ["--input", str(engine_images), "--output", str(tmp_path / "out"), "--model", str(tiny_model), *SMALL]
    assert _as_process(["encode", *flags, "--rows_per_shard", "1", *HERE]) == 130
    assert set(children(os.getpid())) <= before


def test_workers_that_boot_starts_give_the_same_bytes(tmp_path, engine_images, tiny_model):
    here = encode_small(engine_images, tmp_path / "here", tiny_model, "--rows_per_shard", "5")
    environment = {"VQBEAM_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    config = json.dumps({"command": str(ROOT / "deploy" / "boot"), "env": environment})
    flags = ("--runner=PortableRunner", "--environment_type=PROCESS", "--environment_config", config)
    with prism_server() as endpoint:
        there = encode_small(
            engine_images, tmp_path / "there", tiny_model, *flags, f"--job_endpoint={endpoint}", "--rows_per_shard", "5"
        )
    assert there.code == 0, there.err
    assert here.data() == there.data()

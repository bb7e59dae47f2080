"""How a job on Dask ends that is stopped, or whose scheduler is lost: one line, a summary, and nothing left running."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from pipelines.__main__ import _as_process
from pipelines.dask_job import NO_ANSWER
from pipelines.engine_errors import LOST_SCHEDULER
from pipelines.run import RESUMES
from tests.support import dask_workers
from tests.support.real_runs import PATIENCE, session, start, wait_for_objects
from tests.support.run_command import SMALL
from tests.support.small_jobs import encode_small

pytestmark = [pytest.mark.runners, pytest.mark.timeout(600)]
distributed = pytest.importorskip("distributed", reason='no Dask: `make test-runners` installs it, or ".[dask]"')


def words(images: Path, output: Path, model: Path, *flags: str) -> list[str]:
    job = ["encode", "--input", images, "--output", output, "--model", model, *SMALL, "--rows_per_shard", "1", *flags]
    return list(map(str, job))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_job_with_the_cluster_that_dask_made_for_it(
    tmp_path, engine_images, tiny_model, number, code
):
    output = tmp_path / "out"
    job = words(engine_images, output, tiny_model, "--runner=DaskRunner")
    process = start(job, tmp_path / "temporary")
    wait_for_objects(process, output, 6)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert "\nStopped. Finished shards are kept; to resume:\n  python -m pipelines encode " in errors
    assert "Traceback" not in errors
    assert session(process.pid) == []
    assert not (output / "_SUCCESS").exists()
    assert encode_small(engine_images, output, tiny_model, "--rows_per_shard", "1").code == 0


def test_a_lost_scheduler_fails_the_job_in_one_line_and_the_same_command_resumes(tmp_path, engine_images, tiny_model):
    here, output = encode_small(engine_images, tmp_path / "here", tiny_model, "--rows_per_shard", "1"), tmp_path / "out"
    with dask_workers.separate_cluster() as (client, scheduler):
        client.run(dask_workers.wait_in_shards, str(tmp_path))
        flags = ("--runner=DaskRunner", f"--dask_client_address={client.scheduler.address}")
        process = start(words(engine_images, output, tiny_model, *flags), tmp_path / "temporary")
        dask_workers.began(tmp_path, 2)
        os.kill(scheduler, signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    *before, last = [line for line in errors.splitlines() if not line.startswith("0/40 shards")]  # how far it is
    assert last == f"DaskRunner: {LOST_SCHEDULER}. {RESUMES}"
    assert all(re.match("vqbeam encode: starting$|Looking |Comparing |Loading |Listing ", line) for line in before), (
        before
    )
    assert session(process.pid) == []
    again = encode_small(engine_images, output, tiny_model, "--runner=DaskRunner", "--rows_per_shard", "1")
    assert again.code == 0, again.err
    assert again.data() == here.data()


def test_stopped_is_not_said_while_a_worker_does_not_listen(tmp_path, engine_images, tiny_model, capfd):
    with dask_workers.cluster() as client:
        client.run(dask_workers.wait_in_shards, str(tmp_path))
        flags = ("--runner=DaskRunner", f"--dask_client_address={client.scheduler.address}")

        def press() -> None:
            os.kill(dask_workers.began(tmp_path, 2)[0], signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        began = time.monotonic()
        assert _as_process(words(engine_images, tmp_path / "out", tiny_model, *flags)) == 130
        assert time.monotonic() - began < 60
        told = capfd.readouterr().err
        os.kill(dask_workers.began(tmp_path, 2)[0], signal.SIGCONT)
    assert f"The job was not stopped: {NO_ANSWER}. It may go on: its workers finish the shards that they are at" in told
    assert "Stopped" not in told
    assert "Traceback" not in told

"""Jobs on an engine that fails, is cancelled, goes away or does not listen: one line with the reason, and a summary."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from pipelines import elsewhere, far_progress, stopping
from pipelines.__main__ import _as_process
from tests.support.job_service import Running, Script, State, job_service
from tests.support.run_command import SMALL, run
from tests.support.small_jobs import dataset, encode_small

TRACE = """java.lang.RuntimeException: Error received from SDK harness: Traceback (most recent call last):
  File "/beam/sdk_worker.py", line 312, in _execute
    response = task()
ValueError: the disk is red [while running 'Process']

\tat org.apache.beam.Some.java:55
Caused by: java.lang.RuntimeException: Error received
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("images"), 2)


def on(running: Running) -> tuple[str, ...]:
    return ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=LOOPBACK")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(State.FAILED, TRACE), "PortableRunner: ValueError: the disk is red."),
        (Script(State.FAILED, "not enough slots\nmore"), "PortableRunner: not enough slots."),
        (Script(State.CANCELLED), "PortableRunner: it was cancelled."),
        (Script(State.FAILED, "ModuleNotFoundError: No module named 'transforms'"), "the workers have no vqbeam"),
    ],
    ids=["trace", "message", "cancelled", "no_vqbeam"],
)
def test_a_job_that_ends_badly_is_told_in_one_line_with_a_summary(tmp_path, images, tiny_model, script, reason):
    with job_service(script) as running:
        outcome = encode_small(images, tmp_path / "out", tiny_model, *on(running))
    assert outcome.code == 1
    assert reason in outcome.err
    assert "the same command resumes" in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out.startswith("Failed: 0 of 2 shards")
    assert "Traceback" not in outcome.err + outcome.out


@pytest.mark.parametrize("early", [False, True])
def test_a_service_that_goes_away_is_named_and_the_same_command_resumes(tmp_path, images, tiny_model, early):
    """Also before it is known whether it has taken the job."""
    script = Script(ends=None, early=early)
    with job_service(script) as running:
        script.begun = running.go_away
        outcome = encode_small(images, tmp_path / "out", tiny_model, *on(running))
    assert outcome.code == 1
    assert f"the job service {running.endpoint} went away: its job may go on without it; on Flink `curl " in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out.startswith("Failed: 0 of 2 shards")
    assert encode_small(images, tmp_path / "out", tiny_model).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_which_is_then_stopped(tmp_path, images, tiny_model, capfd, number):
    with job_service(Script(ends=None, begun=lambda: os.kill(os.getpid(), number))) as running:
        code = as_process(images, tmp_path / "out", tiny_model, running)
    assert code == 128 + number
    assert running.service.cancelled == 1
    told = capfd.readouterr().err
    assert "Stopping: the job is being cancelled" in told
    assert "Stopped. Finished shards are kept; to resume:\n  " in told


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (Script(ends=None, deaf=True), "The job job-1 was not stopped in time. It may go on: "),
        (Script(ends=None, refuses=True), "was not stopped: .*answers UNIMPLEMENTED: this engine cancels nothing"),
    ],
    ids=["deaf", "refuses"],
)
def test_stopped_is_not_said_of_a_job_that_goes_on(tmp_path, images, tiny_model, capfd, monkeypatch, script, told):
    monkeypatch.setattr(elsewhere, "GRACE_SECONDS", 1.0)
    script.begun = lambda: os.kill(os.getpid(), signal.SIGINT)
    with job_service(script) as running:
        code = as_process(images, tmp_path / "out", tiny_model, running)
    assert code == 130
    errors = capfd.readouterr().err
    assert re.search(told, errors)
    assert f"`vqbeam jobs {running.endpoint} --cancel job-1` cancels it. " in errors
    assert "Stopped" not in errors
    assert "to resume:" in errors


def test_a_second_ctrl_c_leaves_at_once(tmp_path, images, tiny_model, capfd, monkeypatch):
    monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.05)
    monkeypatch.setattr(elsewhere, "GRACE_SECONDS", 1000.0)

    def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    with job_service(Script(ends=None, deaf=True, begun=press_twice)) as running:
        assert as_process(images, tmp_path / "out", tiny_model, running) == 130
    told = capfd.readouterr().err
    assert "was not stopped" in told, repr(told)


def as_process(images: Path, output: Path, model: Path, running: Running) -> int:
    flags = ["--input", str(images), "--output", str(output), "--model", str(model), "--rows_per_shard", "10", *SMALL]
    return _as_process(["encode", *flags, *on(running)])


def test_an_executable_is_written_and_not_run(tmp_path, images, tiny_model):
    with job_service(Script(State.DONE)) as running:
        outcome = encode_small(
            images, tmp_path / "out", tiny_model, *on(running), f"--output_executable_path={tmp_path}/job.jar"
        )
    assert outcome.code == 0
    assert f"The job was written to {tmp_path}/job.jar" in outcome.out
    assert "Failed" not in outcome.out + outcome.err


def test_a_job_that_no_worker_takes_says_where_to_look(tmp_path, images, tiny_model, monkeypatch):
    monkeypatch.setattr(far_progress, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(far_progress, "PATIENCE", 0.3)
    ended = threading.Event()
    with job_service(Script(State.FAILED, "gave up", begun=lambda: ended.wait(1.5))) as running:
        outcome = encode_small(images, tmp_path / "out", tiny_model, *on(running))
    lines = outcome.err.splitlines()
    assert lines[0] == "0/2 shards, waiting for a worker"
    assert any("no worker has started for" in line and running.endpoint in line for line in lines)


def test_shards_done_elsewhere_are_counted_by_their_marks(tmp_path, images, tiny_model, monkeypatch):
    monkeypatch.setattr(far_progress, "LINE_SECONDS", 0.2)
    flags = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
    outcome = encode_small(images, tmp_path / "out", tiny_model, *flags)
    assert outcome.code == 0
    assert any(line.startswith("2/2 shards, ") for line in outcome.err.splitlines())
    assert re.search(r"  speed      \d[\d,]*\.\d images/s a worker\n", outcome.out)


def test_shards_that_overlap_in_one_process_are_the_work_of_one_worker(tmp_path, images, tiny_model):
    """Each had counted in full, so that two threads seemed half as fast."""
    flags = ("--direct_running_mode", "multi_threading", "--workers", "2")
    outcome = encode_small(images, tmp_path / "out", tiny_model, *flags)
    told = outcome.last_run()["workers"]
    assert (told["number"], told["rows_written"]) == (1, outcome.total("rows_written"))
    assert f"  speed      {told['rows_written'] / told['seconds']:,.1f} images/s a worker\n" in outcome.out
    again = encode_small(images, tmp_path / "out", tiny_model)
    assert "Done already" in again.out


def test_workers_with_other_versions_fail_their_shards_and_name_both(tmp_path, images, tiny_model, monkeypatch):
    monkeypatch.setattr("pipelines.pending.versions_here", lambda: {"pillow": "0.1"})
    flags = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
    outcome = encode_small(images, tmp_path / "out", tiny_model, *flags)
    assert outcome.code == 1
    assert "shard 00000: the worker has pillow" in outcome.out
    assert "the command has pillow 0.1" in outcome.out


def test_temporary_files_of_workers_lie_in_temp_dir(tmp_path, images, tiny_model):
    temporary = tmp_path / "temporary"
    flags = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
    outcome = encode_small(images, tmp_path / "out", tiny_model, *flags, "--temp_dir", temporary)
    assert outcome.code == 0
    assert [path.name[:14] for path in temporary.iterdir()] == ["vqbeam-worker-"]
    assert [path.name for folder in temporary.iterdir() for path in folder.iterdir()] == ["alive"]


def test_the_threads_of_a_worker_elsewhere_are_not_those_of_the_launcher(tmp_path, images, tiny_model):
    flags = ("--device", "cpu", "--rows_per_shard", "10", "--batch_size", "4", "--max_error_rate", "1")
    job = ("encode", "--input", images, "--model", tiny_model, *flags)
    with job_service(Script(State.FAILED)) as running:
        run(*job, *on(running), output=tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "_vqbeam" / "plan.json").read_text())
    assert plan["settings"]["threads_per_worker"] == 1
    assert plan["settings"]["device"] == "cpu"


def test_a_job_that_fails_after_its_work_is_done_is_done(tmp_path, images, tiny_model):
    """As Flink does where all TaskManagers have their workers from one pool."""
    output = tmp_path / "out"
    first = encode_small(images, tmp_path / "first", tiny_model)

    def work() -> None:
        for path in ("data", "_vqbeam/errors", "_vqbeam/stats"):
            shutil.copytree(tmp_path / "first" / path, output / path, dirs_exist_ok=True)

    with job_service(Script(State.FAILED, "the worker 1-1 ended", begun=work)) as running:
        outcome = encode_small(images, output, tiny_model, *on(running))
    assert (first.code, outcome.code) == (0, 0)
    assert "PortableRunner: the worker 1-1 ended. The job failed after every shard was done\n" in outcome.err
    assert outcome.out.startswith("Done: 2 of 2 shards")


def test_reasons_of_an_earlier_run_are_not_taken_for_those_of_a_failed_job(tmp_path, images, tiny_model):
    output = tmp_path / "out"
    with job_service(Script(State.FAILED, "no slots")) as running:
        encode_small(images, output, tiny_model, *on(running))
        (output / "_vqbeam" / "last_run.json").write_text('{"failed": [[0, "an earlier reason"]]}')
    with job_service(Script(State.FAILED, "no slots")) as running:
        outcome = encode_small(images, output, tiny_model, *on(running))
    assert "no slots" in outcome.err
    assert "an earlier reason" not in outcome.out

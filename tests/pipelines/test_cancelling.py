"""What is said of a job that goes on: commands that exist, for the engine that it is on."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines import jobs
from pipelines.__main__ import main
from pipelines.cancelling import how_to_cancel
from tests.support.job_service import Script, job_service
from tests.support.paths import ROOT
from tests.support.small_jobs import dataset, encode_small

LIST, ONE = "`curl http://{0}/jobs/overview` lists the jobs", "`curl -X PATCH http://{0}/jobs/{1}` cancels "


@pytest.fixture
def flink() -> object:
    """The address of a web interface of Flink with a job that runs and one that has ended, and what it is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b'{"jobs": [{"jid": "aa", "state": "RUNNING"}, {"jid": "bb", "state": "FINISHED"}]}'
                if self.path == "/jobs/overview"
                else b"{}"
            )

        def do_PATCH(self) -> None:
            asked.append(self.path)
            self.send_response(202)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_job_of_flink_is_cancelled_by_its_web_interface(flink):
    address, asked = flink
    flags = ["--runner=FlinkRunner", f"--flink_master=http://{address}"]
    told = how_to_cancel(flags, "beam-job", answers=False)
    assert told == ONE.format(address, "aa") + "it"
    command = told.split("`")[1].split()
    if subprocess.run([command[0], "--version"], capture_output=True, check=False).returncode == 0:
        subprocess.run(command, check=True, capture_output=True)
        assert asked == ["/jobs/aa"]
    assert how_to_cancel(flags, None, answers=True, at_once=True).startswith(LIST.format(address))


@pytest.mark.parametrize(
    ("flags", "answers", "told"),
    [
        (["PortableRunner", "--job_endpoint=h:1"], True, "`vqbeam jobs h:1 --cancel job-1` cancels it"),
        (["SparkRunner", "--job_endpoint=h:1"], True, "`vqbeam jobs h:1 --cancel job-1` cancels it"),
        (["PortableRunner", "--job_endpoint=h:1"], False, "on Flink " + LIST.format("JOBMANAGER:8081")),
        (["SparkRunner", "--spark_master_url=spark://h:7077"], False, "it ends with its job server"),
        (["PrismRunner"], True, "it ends with its job server"),
        (["FlinkRunner"], True, "it ends with its job server"),
        (["FlinkRunner", "--flink_master=h:8081", "--job_endpoint=j:1"], False, LIST.format("h:8081")),
        (
            ["SparkRunner", "--spark_master_url=spark://h:6066", "--spark_submit_uber_jar"],
            True,
            "`spark-submit --master spark://h:6066 --kill ID` cancels it",
        ),
        (["DaskRunner"], True, "its workers finish the shards that they are at, and begin none"),
        (["FnApiRunner"], True, "cancel it where the engine shows its jobs"),
    ],
)
def test_each_engine_has_its_way(flags: list[str], answers: bool, told: str) -> None:
    runner, *others = flags
    assert how_to_cancel([f"--runner={runner}", *others], "job-1", answers=answers, at_once=True).startswith(told)


def test_a_job_service_lists_its_jobs_and_cancels_one(tmp_path: Path, tiny_model: Path) -> None:
    images, codes, script = dataset(tmp_path / "in", 1), [], Script(ends=None)
    with job_service(script) as running:
        script.begun = lambda: codes.extend(
            (main(["jobs", running.endpoint]), main(["jobs", running.endpoint, "--cancel", "job-1"]))
        )
        flags = ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=LOOPBACK")
        job = encode_small(images, tmp_path / "out", tiny_model, *flags)
    assert codes == [0, 0]
    assert "PortableRunner: it was cancelled." in job.err
    assert "job-1 RUNNING\n" in job.out
    assert running.service.cancelled == 1


def test_the_command_that_is_told_can_be_typed() -> None:
    with job_service(Script(ends=None, refuses=True)) as running:
        told = how_to_cancel(["--runner=PortableRunner", f"--job_endpoint={running.endpoint}"], "job-1", answers=True)
        program, *words = told.split("`")[1].split()
        command = [sys.executable, "-m", "pipelines", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert program == "vqbeam"
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"vqbeam jobs: the job service {running.endpoint} answers UNIMPLEMENTED: this engine cancels nothing\n"
    )


def test_a_job_that_is_deaf_is_not_called_cancelled(monkeypatch, capsys) -> None:
    monkeypatch.setattr(jobs, "END_SECONDS", 0.3)
    with job_service(Script(ends=None, deaf=True)) as running:
        assert main(["jobs", running.endpoint, "--cancel", "job-1"]) == 1
    assert capsys.readouterr().out == "job-1 STOPPED\n"
    assert main(["jobs", running.endpoint]) == 2
    assert "cannot be reached" in capsys.readouterr().err

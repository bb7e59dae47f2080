"""What an engine needs and has not is refused at once, in one line, before anything is stored."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path

import pytest

from pipelines import engines
from tests.support.run_command import run
from tests.support.small_jobs import dataset
from transforms.errors import UsageError


@pytest.fixture
def nobody() -> str:
    """An address that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


JAVA = "--job_server_java_launcher=true"
CASES = {
    "dead_endpoint": (["--runner=PortableRunner", "--job_endpoint={nobody}"], "--job_endpoint {nobody} cannot be"),
    "no_endpoint": (["--runner=PortableRunner"], "PortableRunner needs --job_endpoint HOST:PORT"),
    "no_port": (["--runner=PortableRunner", "--job_endpoint=somewhere"], "expected HOST:PORT"),
    "no_environment": (["--runner=PortableRunner", "--job_endpoint=embed"], "workers of PortableRunner need vqbeam"),
    "flink_no_jar": (["--runner=FlinkRunner"], "FlinkRunner needs a job server: give --job_endpoint"),
    "flink_lost_jar": (["--runner=FlinkRunner", "--flink_job_server_jar=/no/f.jar"], "/no/f.jar is no file"),
    "spark_no_jar": (["--runner=SparkRunner"], "--spark_job_server_jar with the jar, which is https://"),
    "spark_no_java": (
        ["--runner=SparkRunner", f"--spark_job_server_jar={__file__}", "--job_server_java_launcher=nojava"],
        "needs Java, and there is no nojava",
    ),
    "flink_no_master": (
        ["--runner=FlinkRunner", f"--flink_job_server_jar={__file__}", "--flink_master=http://{nobody}", JAVA],
        "--flink_master {nobody} cannot be reached",
    ),
    "spark_no_master": (
        ["--runner=SparkRunner", f"--spark_job_server_jar={__file__}", "--spark_master_url=spark://{nobody}", JAVA],
        "--spark_master_url {nobody} cannot be reached",
    ),
    "no_prism": (["--runner=PrismRunner", "--prism_location=/no/prism"], "--prism_location /no/prism is no file"),
    "streaming": (["--runner=PrismRunner", "--streaming"], "--streaming: a job of vqbeam ends"),
    "streaming_here": (["--streaming"], "--streaming: a job of vqbeam ends"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_engine_that_is_not_there_is_refused_before_anything_is_stored(tmp_path: Path, nobody: str, case: str):
    flags, message = CASES[case]
    began = time.monotonic()
    flags = [flag.format(nobody=nobody) for flag in flags]
    outcome = run("encode", "--input", tmp_path / "none", *flags, output=tmp_path / "out")
    outcome.check_refused(message.format(nobody=nobody))
    assert outcome.err.count("\n") == 1
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("runner", ["NoSuchRunner", "apache_beam.pvalue.NoRunner"])
def test_a_runner_that_does_not_exist_leaves_no_plan(tmp_path: Path, tiny_model: Path, runner: str):
    source = dataset(tmp_path / "in", 1)
    outcome = run("encode", "--input", source, "--model", tiny_model, "--runner", runner, output=tmp_path / "out")
    outcome.check_refused(f"vqbeam encode: --runner {runner}: ")
    assert outcome.err.count("\n") == 1


def test_something_else_than_a_job_service_is_named(monkeypatch):
    monkeypatch.setattr(engines, "REACH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"{address}: something listens there that is no job service"):
            engines.check(asked(), ["--runner=PortableRunner", f"--job_endpoint={address}"])


def test_a_slow_connection_and_a_silent_service_have_one_deadline(monkeypatch):
    connect = socket.create_connection

    def slow(*place: object) -> socket.socket:
        time.sleep(0.4)
        return connect(*place)

    monkeypatch.setattr(engines, "REACH_SECONDS", 0.6)
    monkeypatch.setattr(socket, "create_connection", slow)
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(UsageError, match="no job service"):
            engines.check_answers(f"127.0.0.1:{server.getsockname()[1]}", "--job_endpoint")
    assert 0.6 <= time.monotonic() - began < 0.9


def test_a_name_that_is_long_looked_up_has_the_same_deadline(monkeypatch):
    monkeypatch.setattr(engines, "REACH_SECONDS", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *place: time.sleep(0.5))
    with pytest.raises(UsageError, match=r"nowhere:1 cannot be reached \(no answer\)"):
        engines.check_answers("nowhere:1", "--job_endpoint")


@pytest.mark.parametrize(
    "runner", ["PortableRunner", "DataflowRunner", "apache_beam.runners.dask.dask_runner.DaskRunner"]
)
def test_a_job_elsewhere_needs_an_output(runner):
    with pytest.raises(UsageError, match=f"{runner} needs --output, a folder that its workers can reach"):
        engines.check(asked(output=None), [f"--runner={runner}"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patterns": ["/data/*.tar"]}, "--input /data/[*].tar is on this machine, where workers in containers cannot"),
        ({"output": "out"}, "--output out is on this machine"),
        ({"model": "/m"}, "--model /m is on this machine"),
        ({"models": [{"model": "/m"}]}, "--model /m is on this machine"),
    ],
)
def test_files_of_this_machine_are_refused_for_workers_in_containers(values, message):
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--sdk_container_image=vqbeam:1"]
    with pytest.raises(UsageError, match=message):
        engines.check(asked(**values), flags)
    engines.check(asked(model="emoji", patterns=["gs://b/*.tar"]), flags)


def test_a_path_that_workers_of_other_machines_must_share_is_told(capsys, monkeypatch):
    monkeypatch.setattr(engines, "check_answers", lambda address, flag: None)
    flags = ["--runner=PortableRunner", "--job_endpoint=cluster:8099", "--environment_type=EXTERNAL"]
    engines.check(asked(output="/shared/out", patterns=["gs://b/*.tar"]), flags)
    assert (
        "warning: --output /shared/out is a path of this machine: the workers of cluster:8099"
        in capsys.readouterr().err
    )
    engines.check(asked(output="gs://b/out", patterns=["gs://b/*.tar"]), flags)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("master", "address"),
    [
        ("[auto]", None),
        ("local[4]", None),
        ("yarn", None),
        ("spark://a:7077,b:7077", "a:7077"),
        ("http://flink:8081", "flink:8081"),
        ("flink:8081", "flink:8081"),
    ],
)
def test_a_master_is_an_address_or_none(master, address):
    assert engines.address_of(master) == address


def asked(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"output": "gs://b/out", "patterns": [], **values})

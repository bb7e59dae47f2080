"""What Flink and Spark are told of a plan, and what is said of a cluster that lacks something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from pipelines.clusters import for_plan
from tests.support.job_service import Script, job_service
from tests.support.paths import ROOT
from tests.support.run_command import run
from tests.support.small_jobs import dataset, encode_small

OVERVIEW = {"taskmanagers": 1, "slots-total": 4, "slots-available": 4}
RESTARTS = [{"key": "restart-strategy.type", "value": "fixed-delay"}]
CACHED = "--environment_cache_millis=60000"
Flink = Callable[..., str]


@pytest.fixture
def flink() -> Iterator[Flink]:
    """Starts a web interface of Flink that gives the answers of its arguments, and returns its address."""
    servers = []

    def start(overview: dict[str, Any] = OVERVIEW, config: list[Any] = RESTARTS) -> str:
        answers = {"/overview": overview, "/jobmanager/config": config}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answers[self.path]).encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("pending", "parallelism"), [(2, 2), (100, 4)])
def test_flink_works_in_as_many_slots_as_there_are_shards_and_slots(flink, capsys, pending, parallelism):
    flags = ["--runner=FlinkRunner", f"--flink_master={flink()}", "--environment_type=PROCESS"]
    assert for_plan(flags, pending) == [*flags, CACHED, f"--parallelism={parallelism}"]
    assert capsys.readouterr().err == ""


def test_what_is_given_stays_as_it_is(flink, capsys):
    flags = ["--runner=FlinkRunner", f"--flink_master={flink()}", "--environment_type=PROCESS", "--parallelism=3"]
    flags.append("--environment_cache_millis=5")
    assert for_plan(flags, 100) == flags
    spark = ["--runner=SparkRunner", "--job_server_jvm_properties=-Dspark.default.parallelism=7", CACHED]
    assert for_plan(spark, 100) == spark
    others = ["--runner=PortableRunner", "--job_endpoint=embed"]
    assert for_plan(others, 100) == others
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("overview", "config", "flags", "warning"),
    [
        (OVERVIEW, [], ["--environment_type=PROCESS"], "Flink's configuration has no restart-strategy.type"),
        (OVERVIEW, RESTARTS, ["--environment_type=PROCESS", "--parallelism=5"], "needs more than the 4 slots"),
        (OVERVIEW | {"taskmanagers": 2}, RESTARTS, ["--environment_type=LOOPBACK"], "workers are one pool"),
        (
            OVERVIEW | {"taskmanagers": 2},
            RESTARTS,
            ["--environment_type=EXTERNAL", "--environment_config=pool:5000"],
            "workers are one pool",
        ),
    ],
)
def test_what_a_cluster_lacks_is_told(flink, capsys, overview, config, flags, warning):
    for_plan(["--runner=FlinkRunner", f"--flink_master={flink(overview, config)}", *flags], 100)
    told = capsys.readouterr().err
    assert warning in told
    assert told.count("\n") == 1


def test_a_pool_on_each_host_is_no_reason_to_warn(flink, capsys):
    flags = ["--environment_type=EXTERNAL", "--environment_config=localhost:5000"]
    for_plan(["--runner=FlinkRunner", f"--flink_master={flink(OVERVIEW | {'taskmanagers': 2})}", *flags], 100)
    assert capsys.readouterr().err == ""


def test_spark_gets_a_partition_for_each_shard(capsys):
    flags = ["--runner=SparkRunner", "--spark_master_url=spark://a:7077"]
    assert for_plan(flags, 32)[-1] == "--job_server_jvm_properties=-Dspark.default.parallelism=32"
    for_plan([*flags, "--job_endpoint=a:8099"], 32)
    assert "started with -Dspark.default.parallelism=N: 32 shards are to be done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("known", "told"), [("flink_master", "Flink does all shards in one slot"), ("spark_master_url", "two partitions")]
)
def test_a_job_service_says_which_engine_it_is_of(tmp_path, tiny_model, known, told):
    images = dataset(tmp_path / "images", 2)
    with job_service(Script(options=(known,))) as running:
        flags = ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=PROCESS")
        config = ("--environment_config", '{"command": "/opt/boot"}')
        outcome = encode_small(images, tmp_path / "out", tiny_model, *flags, *config)
        asked = running.service.prepared[0].pipeline_options
    assert told in outcome.err
    assert asked["beam:option:environment_cache_millis:v1"] == "60000"
    environments = running.service.prepared[0].pipeline.components.environments.values()
    assert {environment.urn for environment in environments} == {"beam:env:process:v1"}


def test_the_parallelism_reaches_the_job_server(tmp_path, tiny_model, flink):
    images = dataset(tmp_path / "images", 2)
    with job_service(Script()) as running:
        flags = ("--runner=FlinkRunner", f"--job_endpoint={running.endpoint}", f"--flink_master={flink()}")
        encode_small(images, tmp_path / "out", tiny_model, *flags, "--environment_type=LOOPBACK")
        assert running.service.prepared[0].pipeline_options["beam:option:parallelism:v1"] == "2"
    assert run("status", tmp_path / "out").code == 0


def test_boot_starts_a_worker_in_the_environment_beside_it_or_the_one_that_is_named(tmp_path):
    boot = ROOT / "deploy" / "boot"
    named = {"PATH": os.environ["PATH"], "VQBEAM_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([boot, "--id=1"], env=named, capture_output=True, text=True, check=False)
    assert done.stderr == "worker: the engine gives no control_endpoint\n"
    assert done.returncode == 1
    shutil.copy(boot, tmp_path / "boot")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "boot", "--id=1"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.stdout == "-m pipelines.cluster_worker --id=1\n"

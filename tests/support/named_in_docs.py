"""What stands for the buckets, services and programs that pages name, as far as their commands are run."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PLANNED = ("DataflowRunner", "FlinkRunner", "PrismRunner")  # jobs that are planned and not launched
FLINK_JAR = "beam-runners-flink-1.19-job-server-2.77.0.jar"


@contextmanager
def stand_ins(text: str, folder: Path, bucket: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """By what a page says, what is there instead; `bucket` gives the URL of an emulated bucket of a scheme."""
    with ExitStack() as stack:
        found: dict[str, str] = {}
        for scheme in ("gs", "s3"):
            if f"{scheme}://my-bucket" in text:
                found[f"{scheme}://my-bucket"] = bucket(scheme)
        if "jobs-host:8099" in text:
            from tests.support.job_service import Script, job_service

            found["jobs-host:8099"] = stack.enter_context(job_service(Script(ends=None))).endpoint
        if "flink-host:8081" in text:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            found["flink-host:8081"] = f"127.0.0.1:{server.getsockname()[1]}"
            (folder / FLINK_JAR).touch()
        if "--metrics_port 9464" in text:
            with socket.create_server(("127.0.0.1", 0)) as server:
                found["9464"] = str(server.getsockname()[1])
        if "go/bin/prism" in text:
            (folder / "prism").touch()
            found[str(Path("~/go/bin/prism").expanduser())] = str(folder / "prism")
        if "tcp://scheduler:8786" in text and importlib.util.find_spec("distributed"):
            found["tcp://scheduler:8786"] = stack.enter_context(_dask())
        yield found


@contextmanager
def _dask() -> Iterator[str]:
    """The address of a scheduler with a worker, in this process."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def run_here(argv: list[str], named: dict[str, str], main: Callable[[list[str]], int]) -> int:
    """Runs a command of a page on what is `named` there. One for Dask is left out if that is not installed."""
    if any("tcp://scheduler:8786" in word for word in argv) and "tcp://scheduler:8786" not in named:
        return 0
    for said, there in named.items():
        argv = [word.replace(said, there) for word in argv]
    if "FlinkRunner" in argv:
        argv = [*argv, "--job_server_java_launcher", sys.executable]  # any program
    return main([*argv, "--dry_run"] if set(PLANNED) & set(argv) else argv)

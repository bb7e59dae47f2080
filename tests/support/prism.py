"""Prism, Beam's own portable engine, as `make test-runners` builds it, and a pool of workers beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

PRISM = os.environ.get("PRISM") or shutil.which("prism", path=str(Path(sys.executable).parent))
PATIENCE = 60  # seconds


@contextmanager
def listening(command: list[str], port: int, environment: Mapping[str, str] = os.environ) -> Iterator[subprocess.Popen]:
    """A server in a process of its own, for as long as the context is open."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None, f"{command} ended with {process.returncode}"
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield process
        finally:
            os.killpg(process.pid, 9)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def prism_server() -> Iterator[str]:
    """The address of a job server."""
    port = free_port()
    with listening([str(PRISM), "--serve_http=false", f"--job_port={port}"], port):
        yield f"localhost:{port}"


@contextmanager
def worker_pool() -> Iterator[tuple[str, int]]:
    """The address of a pool that starts workers in processes of their own, and the number of its process."""
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts `python`, whichever that is
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with listening(command, port, environment) as process:
        yield f"localhost:{port}", process.pid

"""A cluster of Dask with two worker processes, and what is called in these: counters, and shards that wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.paths import ROOT
from tests.support.prism import PATIENCE, free_port, listening

WORKERS = 2
counts: Counter[str] = Counter()  # of a worker process


@contextmanager
def cluster() -> Iterator[Any]:
    """A client of the cluster, whose scheduler is in this process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=":0") as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def separate_cluster() -> Iterator[tuple[Any, int]]:
    """A client, and the process of the scheduler, beside which are two of workers."""
    from distributed import Client

    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begin = [sys.executable, "-m"]
    scheduler = [*begin, "distributed.cli.dask_scheduler", f"--port={port}", "--host=127.0.0.1", "--no-dashboard"]
    workers = [
        *begin,
        "distributed.cli.dask_worker",
        address,
        f"--nworkers={WORKERS}",
        "--nthreads=1",
        "--no-dashboard",
    ]
    with listening(scheduler, port, environment) as one, TemporaryDirectory() as folder:
        command = [*workers, f"--local-directory={folder}"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as other:
            try:
                with Client(address, set_as_default=False) as client:
                    client.wait_for_workers(WORKERS, timeout=PATIENCE)
                    yield client, one.pid
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(other.pid, signal.SIGKILL)


def begin_counting() -> None:
    """Count the shards that this process does and the models that it loads from now on."""
    from transforms.engine.worker import ShardAttempt
    from transforms.work.encode import EncodeStep

    counts.clear()
    _count_calls(ShardAttempt, "run")
    _count_calls(EncodeStep, "setup")


def counted() -> dict[str, int]:
    return dict(counts)


def _count_calls(owner: type, name: str) -> None:
    call = getattr(owner, f"_plain_{name}", None) or getattr(owner, name)

    def counting(*args: Any) -> Any:
        counts[f"{owner.__name__}.{name}"] += 1
        return call(*args)

    setattr(owner, f"_plain_{name}", call)
    setattr(owner, name, counting)


def wait_in_shards(folder: str) -> None:
    """Have each shard wait, before its first batch, until the folder holds `finish` or the run is to stop."""
    from transforms.engine.worker import ShardAttempt

    stream = getattr(ShardAttempt, "_plain_stream", ShardAttempt._stream)

    def waiting(self: Any, *args: Any) -> Any:
        Path(folder, f"began-{self.shard.index}-{os.getpid()}").touch()
        while not Path(folder, "finish").exists() and not self.resources.monitor.stop_requested():
            time.sleep(0.02)
        return stream(self, *args)

    ShardAttempt._plain_stream, ShardAttempt._stream = stream, waiting


def began(folder: Path, shards: int) -> list[int]:
    """The processes that are at a shard, once there are as many shards begun."""
    deadline = time.monotonic() + 60
    while len(found := list(folder.glob("began-*"))) < shards:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.name.rpartition("-")[2]) for path in found]

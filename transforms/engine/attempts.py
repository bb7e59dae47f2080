"""Attempts that end their worker: each leaves a marker, and a shard with two of them runs in a process of its own."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transforms import storage
from transforms.engine.job import Job
from transforms.errors import ShardFailed, Stopped
from transforms.ledger.folder import ATTEMPTS
from transforms.ledger.types import ShardReport

TOLERATED = 2  # attempts that did not end
LOOK_SECONDS = 0.1
BEAT_SECONDS = 15.0  # between two writes of a marker
CODE = """
import os, pickle, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
parent = os.getppid()
def end_with_parent():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
with open(sys.argv[1], "rb") as file:
    sys.path[:] = pickle.load(file)
    run = pickle.load(file)
    report = run(*pickle.load(file))
with open(sys.argv[1], "wb") as file:
    pickle.dump(report, file)
"""


class Beat:
    """Writes into a marker how many rows of its shard are done, as a sign of life; only where that is a local file,
    since a store may keep the model waiting."""

    def __init__(self, uri: str) -> None:
        self._uri = uri if storage.is_local(uri) else None
        self._next = time.monotonic() + BEAT_SECONDS

    def __call__(self, rows: float) -> None:
        if self._uri is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BEAT_SECONDS
        with suppress(OSError), open(self._uri, "r+", encoding="ascii") as marker:  # which may be gone by now
            marker.write(f"{int(rows)}\n")
            marker.truncate()


class Attempts:
    """The markers of the attempts at one shard."""

    def __init__(self, output: str, shard: str) -> None:
        self._prefix = storage.join(output, ATTEMPTS, f"{shard}.")

    def left(self) -> list[str]:
        """The markers of attempts that neither committed nor failed."""
        return [info.uri for info in storage.iterate_files(f"{self._prefix}*")]

    @contextmanager
    def marked(self, left: list[str]) -> Iterator[Beat]:
        """Has a marker while the context is open, which only the end of the process leaves behind. Those that others
        `left` go once it is done."""
        uri = f"{self._prefix}{uuid.uuid4().hex[:12]}"
        storage.put_new(b"", uri)
        try:
            yield Beat(uri)
        except Exception:
            self._remove([uri])
            raise
        self._remove([uri, *left])
        self._tidy()

    def clear(self) -> None:
        """Remove the markers of a shard that is done."""
        with suppress(ShardFailed):
            self._remove(self.left())
        self._tidy()

    def _tidy(self) -> None:
        with suppress(ShardFailed):
            storage.delete_partials(self._prefix)

    def _remove(self, uris: list[str]) -> None:
        with suppress(ShardFailed):  # the next attempt counts one more
            for uri in uris:
                storage.delete(uri)


Run = Callable[[Job, int], ShardReport]


def run_apart(run: Run, job: Job, index: int, stopped: Callable[[], bool]) -> ShardReport:
    """The report of shard `index`, done by `run` in a process of its own.

    Raises `ShardFailed` if that ends early, or takes longer than the job's `shard_timeout`, and `Stopped`.
    """
    with tempfile.TemporaryDirectory(prefix="apart-", dir=job.temp_dir) as folder:
        path = Path(folder, "work")
        with path.open("wb") as file:
            for value in (sys.path, run, (job, index)):
                pickle.dump(value, file)
        ended = f"ended its worker {TOLERATED} times, and in a process of its own"
        deadline = time.monotonic() + job.shard_timeout
        with subprocess.Popen([sys.executable, "-c", CODE, str(path)]) as process:
            try:
                while process.poll() is None:
                    if stopped():
                        raise Stopped
                    if time.monotonic() > deadline:
                        raise ShardFailed(f"{ended} took longer than {job.shard_timeout:g} s, the shard_timeout")
                    time.sleep(LOOK_SECONDS)
            finally:
                process.kill()
        code = process.returncode
        if code:
            how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
            raise ShardFailed(f"{ended} ended with {how}: a row is more than a library bears, or memory is short")
        report: ShardReport = pickle.loads(path.read_bytes())
        return report

"""Attempts that end their worker: each leaves a marker, and a shard with two of them runs in a process of its own."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transforms import storage
from transforms.engine.job import Job
from transforms.errors import ShardFailed
from transforms.ledger.folder import ATTEMPTS
from transforms.ledger.types import ShardReport

TOLERATED = 2  # attempts that did not end
CODE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    sys.path[:] = pickle.load(file)
    run = pickle.load(file)
    report = run(*pickle.load(file))
with open(sys.argv[1], "wb") as file:
    pickle.dump(report, file)
"""


class Attempts:
    """The markers of the attempts at one shard."""

    def __init__(self, output: str, shard: str) -> None:
        self._prefix = storage.join(output, ATTEMPTS, f"{shard}.")

    def left(self) -> list[str]:
        """The markers of attempts that neither committed nor failed."""
        return [info.uri for info in storage.list_files(f"{self._prefix}*")]

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Has a marker while the context is open, which only the end of the process leaves behind."""
        uri = f"{self._prefix}{uuid.uuid4().hex[:12]}"
        storage.put_new(b"", uri)
        try:
            yield
        except Exception:
            self._remove([uri])
            raise
        self._remove([uri])
        self.clear()

    def clear(self) -> None:
        """Remove the markers of a shard that is done."""
        with suppress(ShardFailed):
            self._remove(self.left())
            storage.delete_partials(self._prefix)

    def _remove(self, uris: list[str]) -> None:
        with suppress(ShardFailed):  # the next attempt counts one more
            for uri in uris:
                storage.delete(uri)


Run = Callable[[Job, int], ShardReport]


def run_apart(run: Run, job: Job, index: int, seconds: float) -> ShardReport:
    """The report of shard `index`, done by `run` in a process of its own.

    Raises `ShardFailed` if that ends early, or takes longer than `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="apart-", dir=job.temp_dir) as folder:
        path = Path(folder, "work")
        with path.open("wb") as file:
            for value in (sys.path, run, (job, index)):
                pickle.dump(value, file)
        shard = f"shard {index:05d} ended its worker {TOLERATED} times, and in a process of its own"
        try:
            code = subprocess.run([sys.executable, "-c", CODE, str(path)], check=False, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            raise ShardFailed(f"{shard} took longer than shard_timeout {seconds:g} s: it was ended") from None
        if code:
            how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
            raise ShardFailed(f"{shard} ended with {how}: a row is more than a library bears, or memory is short")
        report: ShardReport = pickle.loads(path.read_bytes())
        return report

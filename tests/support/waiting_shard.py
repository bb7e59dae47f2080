"""Shards for the tests of launching and stopping: each runs until a file `finish` appears or the run is to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam

from transforms.engine.monitor import Monitor


class WaitInShard(beam.DoFn):
    """A shard leaves `began-N-PID`, then `ended-N` or `dropped-N`. Deaf shards ignore requests to stop."""

    def __init__(self, folder: str, scratch: str, deaf: bool) -> None:
        self._folder = folder
        self._scratch = scratch
        self._deaf = deaf

    def setup(self) -> None:
        self._monitor = Monitor(self._scratch)

    def process(self, shard: int) -> Iterator[int]:
        folder = Path(self._folder)
        (folder / f"began-{shard}-{os.getpid()}").touch()
        while not (folder / "finish").exists():
            if self._monitor.stop_requested() and not self._deaf:
                (folder / f"dropped-{shard}").touch()
                return
            time.sleep(0.02)
            self._monitor.add(rows_read=1, rows_written=1)
        self._monitor.add(shards_done=1)
        (folder / f"ended-{shard}").touch()
        yield shard

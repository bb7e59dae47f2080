"""Times a worker on one shard, from the first byte read to the commit; its models are loaded already."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources
from transforms.engine.worker import ShardAttempt
from transforms.errors import ShardFailed
from transforms.inputs.plan import plan_sources
from transforms.inputs.request import InputRequest
from transforms.ledger.types import Shard, Slice
from transforms.work.step import Step
from transforms.work.work import Work


class Rate(NamedTuple):
    """Images/s by the clock, and by processor time."""

    clock: float
    processor: float


class Clock:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._start, self._worked = time.perf_counter(), time.process_time()

    def rate(self, images: int) -> Rate:
        return Rate(images / (time.perf_counter() - self._start), images / (time.process_time() - self._worked))


class ShardRunner:
    """What a worker process owns for `work` on the one source of `request`; `step` is set up already."""

    def __init__(self, work: Work, step: Step, request: InputRequest, folder: Path, threads: int) -> None:
        plan = plan_sources(request, rows_per_shard=1 << 30)
        (piece,) = plan.pieces
        self._source = piece.slice.source
        self._folder = folder
        self._job = Job(
            work=work, output="", schema=plan.schema, provenance={}, version="benchmark", decode_threads=threads
        )
        self._resources = Resources([step], decode_threads=threads, max_error_rate=0.0, monitor=Monitor(None))

    def run(self, rows: int) -> Rate:
        """Encodes or draws the first `rows` rows of the source, one image each, as one shard."""
        shard = Shard(0, (Slice(self._source, 0, rows),))
        with tempfile.TemporaryDirectory(dir=self._folder) as output:
            job = replace(self._job, output=output)
            clock = Clock()
            report = ShardAttempt(shard, job, self._resources).run()
            rate = clock.rate(rows)
        if report.status != "done" or report.counts.rows_written != rows:
            raise ShardFailed(f"the shard of {rows} rows was not written: {report}")
        return rate

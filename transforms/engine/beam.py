"""The Beam side of a command: shard numbers in, one report each out, and the end of the run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from transforms import storage
from transforms.engine import runs, speed
from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources
from transforms.engine.versions import check_versions
from transforms.engine.worker import ShardAttempt, calls_at_once, guarded, make_steps
from transforms.errors import ShardFailed
from transforms.ledger.commit import MainObject
from transforms.ledger.digests import BLOCK, FEWEST, CountedMark, digest_of, store_digest
from transforms.ledger.folder import LAST_RUN
from transforms.ledger.plan import load_plan
from transforms.ledger.stored_shards import ShardReader
from transforms.ledger.totals import settle
from transforms.ledger.types import ShardReport, StoredObject, mark_values
from transforms.outputs.card import write_card

RANGE = 1000  # shard numbers per element before the reshuffle, so that a huge plan makes a small job graph
REASONS_KEPT = 100  # of failed shards, in the summary of a run
NAMESPACE = "vqbeam"
log = logging.getLogger("vqbeam")


@dataclass
class ProcessShards(beam.PTransform):
    """Shard numbers -> one summary of the run, and digests of the marks that it made.

    Only numbers and reports cross a shuffle. The chain is linear and all work and the commit happen inside one
    `process()`, which every runner honours.
    """

    job: Job

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return (
            shards
            | "Spread" >> beam.Reshuffle()
            | "Process" >> beam.ParDo(_ProcessShard(self.job))
            | "Block" >> beam.Map(lambda report: (report["shard"] // BLOCK, report))
            | "Together" >> beam.GroupByKey()
            | "Digest" >> beam.Map(digest_block, self.job.output)
            | "Summarise" >> beam.CombineGlobally(_Summarise())
            | "Finish" >> beam.Map(finish, self.job.output, self.job.max_error_rate, self.job.work.main)
        )


@dataclass
class ProcessBlocks(beam.PTransform):
    """Blocks of shard numbers -> a summary of each, for engines whose shuffles are not to be relied on.

    The launcher adds the summaries up, and calls `finish`. `run` is a name for this run (`transforms.engine.runs`).
    """

    job: Job
    run: str

    def expand(self, blocks: beam.PCollection) -> beam.PCollection:
        return blocks | "Process" >> beam.ParDo(_ProcessBlock(self.job, self.run))


def shard_ranges(pending: Iterable[int]) -> list[tuple[int, int]]:
    """Ordered shard numbers as half-open ranges of at most `RANGE`."""
    ranges: list[tuple[int, int]] = []
    for index in pending:
        if ranges and ranges[-1][1] == index and index - ranges[-1][0] < RANGE:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges


class _Held:
    """What the threads of a process share. One object: Beam keeps no more than one of a step from bundle to bundle."""

    def __init__(self, job: Job, stopped: Callable[[], bool] | None) -> None:
        self.resources = Resources(
            make_steps(job),
            decode_threads=job.decode_threads,
            max_error_rate=job.max_error_rate,
            monitor=Monitor(job.scratch, stopped),
            calls=calls_at_once(job),
            alone=job.scratch is not None,
        )
        self.shards = ShardReader(job.output)


class _Worker(beam.DoFn):
    """Makes reports of shards; all threads of a process share the models, and read the plan once. `stopped` tells of a
    request to stop that does not come through the scratch folder."""

    def __init__(self, job: Job, stopped: Callable[[], bool] | None = None) -> None:
        self._job = job
        self._stopped = stopped
        self._shared = Shared()

    def setup(self) -> None:
        self._held: _Held = self._shared.acquire(partial(_Held, self._job, self._stopped))

    def report(self, index: int) -> dict[str, Any]:
        held, began = self._held, time.time()
        report = guarded(index, held.resources, lambda: self._attempt(index, held))
        count_report(report)
        return asdict(replace(report, worker=speed.worker(), began=began, ended=time.time()))

    def _attempt(self, index: int, held: _Held) -> ShardReport:
        job = self._job
        check_versions(job.versions)
        if job.scratch is None:
            job = replace(job, temp_dir=held.resources.folder(job.temp_dir))
        return ShardAttempt(held.shards.shard(index), job, held.resources).run()


class _ProcessShard(_Worker):
    def process(self, index: int) -> Iterator[dict[str, Any]]:
        yield self.report(index)


class _ProcessBlock(_Worker):
    """A block of shards, one after the other. They stop with the `run`."""

    def __init__(self, job: Job, run: str) -> None:
        super().__init__(job, partial(runs.is_stopped, run))
        self._run = run

    def process(self, block: Sequence[int]) -> Iterator[dict[str, Any]]:
        with runs.at_work(self._run):
            yield merged(_summary(self.report(index)) for index in block)


def count_report(report: ShardReport) -> None:
    """Beam's counters and distributions, for runners that show them."""
    Metrics.counter(NAMESPACE, f"shards_{report.status}").inc()
    if report.status in ("done", "adopted"):
        for name in ("rows_read", "rows_written", "rows_rejected", "rows_filtered", "missing_captions"):
            Metrics.counter(NAMESPACE, name).inc(getattr(report.counts, name))
        for code, count in report.counts.errors.items():
            Metrics.counter(NAMESPACE, f"error_{code}").inc(count)
    if report.status == "done":
        Metrics.distribution(NAMESPACE, "shard_ms").update(int(report.seconds * 1000))
        for stage, seconds in report.timings.items():
            Metrics.distribution(NAMESPACE, f"{stage}_ms").update(int(seconds * 1000))


def digest_block(block: tuple[int, Iterable[dict[str, Any]]], output: str) -> dict[str, Any]:
    """Put a digest of the marks of a block that this run made, so that nobody reads them; returns their summary."""
    number, reports = block
    found = list(reports)
    marks = [counted_mark(report) for report in found if report["mark"]]
    if len(marks) >= FEWEST:
        try:
            store_digest(output, number, digest_of(marks))
        except ShardFailed as error:  # then they are read
            log.warning("%s", error)
    return merged(map(_summary, found))


def counted_mark(report: dict[str, Any]) -> CountedMark:
    """The mark that an attempt put, from its report."""
    values = mark_values(report) | {"bytes": report["bytes"]}
    return CountedMark(report["mark"], values, [StoredObject(**item) for item in report["objects"]])


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    status = report["status"]
    rows = {name: count for name, count in report["counts"].items() if name.startswith("rows_")}
    return {
        "shards": {status: 1},
        "rows": rows if status in ("done", "adopted") else {},
        "seconds": report["timings"],
        "failed": [[report["shard"], report["reason"]]] if status == "failed" else [],
        "advised": int(report["advised"]),
        "workers": speed.span_of(report),
    }


def merged(summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Adds up; keeps the first reasons of failure by shard number."""
    total: dict[str, Any] = {"shards": {}, "rows": {}, "seconds": {}, "failed": [], "advised": 0, "workers": {}}
    for one in summaries:
        for name in ("shards", "rows", "seconds"):
            for key, value in one[name].items():
                total[name][key] = total[name].get(key, 0) + value
        total["advised"] += one["advised"]
        total["failed"] = sorted(total["failed"] + one["failed"])[:REASONS_KEPT]
        total["workers"] = speed.together([total["workers"], one["workers"]])
    return total


class _Summarise(beam.CombineFn):
    """Adds up the summaries of blocks."""

    def create_accumulator(self) -> dict[str, Any]:
        return merged(())

    def add_input(self, total: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
        return merged([total, summary])

    def merge_accumulators(self, totals: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return merged(totals)

    def extract_output(self, total: dict[str, Any]) -> dict[str, Any]:
        return total


def finish(summary: dict[str, Any], output: str, max_error_rate: float, main: MainObject) -> dict[str, Any]:
    """Write the summary of this run and, if the whole plan is done and did not fail, `_SUCCESS` and the dataset card.

    If the store refuses them, that is logged and no more: what is done is done, and the launcher looks for itself.
    """
    summary["workers"] = speed.speed(summary["workers"])
    try:
        plan = load_plan(output)
        if plan is not None:
            outcome = settle(output, plan.shards, max_error_rate)
            summary["failing"] = outcome.failing
            if plan.views:
                rows_of = summary["rows"].items()
                summary["images"] = {name.replace("rows", "images"): count // plan.views for name, count in rows_of}
            if outcome.well:
                write_card(output, main)
        text = json.dumps(summary, indent=1, sort_keys=True) + "\n"
        storage.put_bytes(text.encode(), storage.join(output, LAST_RUN))
    except ShardFailed as error:  # raised here, it would end in pages of Beam's traceback, or in four tries
        log.warning("%s", error)
    return summary

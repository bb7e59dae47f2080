"""One shard on one worker: read, prepare, model, write, commit. Streams in batches; no exception escapes."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import torch

from models.errors import ModelError
from transforms.engine.attempts import TOLERATED, Attempts, run_apart
from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.prefetch import Behind, ahead
from transforms.engine.resources import Resources, claim_gpus, cores, require_room
from transforms.engine.tally import Tally
from transforms.errors import RowRejected, ShardFailed, SourceChanged, Stopped, UsageError
from transforms.inputs.fetch import fetch_image, rejecting
from transforms.inputs.formats import read_slices
from transforms.inputs.provenance import OTHER_TIME, as_they_are
from transforms.inputs.uris import store_of
from transforms.ledger.commit import ShardTransaction
from transforms.ledger.folder import OutputFolder
from transforms.ledger.retry import Redoing
from transforms.ledger.stored_shards import load_shard
from transforms.ledger.tables import ErrorLog
from transforms.ledger.types import STAGES, Shard, ShardCounts, ShardReport, Source, shard_name
from transforms.outputs.layout import Sink, SinkTarget
from transforms.work.prepare import Fetch, Pool, Pools, Prepared, Preparer, Refusal
from transforms.work.step import Step

READ_AHEAD = 2  # batches read and being prepared while the model works
WRITE_BEHIND = 2  # batches through the model and not yet written
T = TypeVar("T")
log = logging.getLogger("vqbeam")


def make_steps(job: Job) -> list[Step]:
    """The model step of a job for each device of this process; weights are not loaded yet."""
    gpus = torch.cuda.device_count() if job.device in ("auto", "cuda") else 0
    devices = [f"cuda:{number}" for number in claim_gpus(gpus, job.processes)] if gpus > 1 else [job.device]
    return [job.work.step(device) for device in devices]


def calls_at_once(job: Job) -> int:
    """How many shards of a process may run the model at once: one on a GPU, else as many as have cores."""
    on_gpu = job.device.startswith("cuda") or (job.device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else max(1, cores() // max(1, job.decode_threads))


def guarded(index: int, resources: Resources, attempt: Callable[[], ShardReport]) -> ShardReport:
    """The report of `attempt` at shard `index`; if it raises, a report that the shard failed, with the reason."""
    start = time.perf_counter()
    resources.monitor.add(shards_in_flight=1)
    try:
        resources.fitness.require(resources.monitor.stop_requested)
        report = attempt()
        resources.fitness.note(None)
    except Stopped:
        return ShardReport(index, "stopped")
    except Exception as error:  # raised further, it would end the whole pipeline
        resources.fitness.note(error)
        told = isinstance(error, ShardFailed | UsageError | ModelError)
        reason = str(error) if told else f"{type(error).__name__}: {error}"
        if not told and not isinstance(error, OSError):
            log.exception("shard %s", shard_name(index))
        advised = isinstance(error, ShardFailed) and error.advised
        seconds = time.perf_counter() - start
        report = ShardReport(index, "failed", seconds=seconds, reason=reason, advised=advised)
    finally:
        resources.monitor.add(shards_in_flight=-1)
    finished = "shards_failed" if report.status == "failed" else "shards_done"
    resources.monitor.add(**{finished: 1})
    return report


class ShardAttempt:
    """One attempt at one shard, which writes into `folder`, the output folder by default; `run` raises any error."""

    def __init__(self, shard: Shard, job: Job, resources: Resources, folder: OutputFolder | None = None) -> None:
        self.shard = shard
        self.job = job
        self.apart = False  # in a process of its own
        self.resources = resources
        self.folder = folder or OutputFolder(job.output)
        self.transaction = ShardTransaction(self.folder, shard.name, job.work.main, job.version, job.seal)
        self.counts = ShardCounts()
        self.notices: Counter[str] = Counter()  # of the stage that prepares
        self.attempt_notices: dict[str, int] = {}  # which are not of the rows, and so not of the output
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.share = resources.budget.share()
        self.tally = Tally(resources.monitor)
        self.over = threading.Event()

    def run(self) -> ShardReport:
        """Do the shard, unless it is done."""
        rows = None
        try:
            report = self._run()
            rows = None if report.status == "failed" else report.counts.rows_read
            return report
        finally:
            self.tally.end(rows)

    def _run(self) -> ShardReport:
        if self.resources.monitor.stop_requested() or self.resources.monitor.last_requested():
            raise Stopped
        done = self.transaction.mark()
        redoing = Redoing(self.folder, self.shard.name)
        attempts = Attempts(self.job.output, self.shard.name)
        if done is None:
            adopted = self.transaction.adopt()
            if adopted is not None:
                attempts.clear()
                return adopted
        elif not redoing.requested():
            attempts.clear()
            return ShardReport(self.shard.index, "skipped", done)
        taken: tuple[Source, ...] = ()
        if self.job.take_changed:
            slices, taken = as_they_are(self.shard.slices)
            self.shard = replace(self.shard, slices=slices)
        left = attempts.left()
        if not self.apart and len(left) >= TOLERATED:
            return run_apart(attempt_apart, self.job, self.shard.index, self.resources.monitor.stop_requested)
        with attempts.marked(left) as self.tally.beat:
            return self._attempt(redoing, taken, fresh=done is None)

    def _attempt(self, redoing: Redoing, taken: tuple[Source, ...], *, fresh: bool) -> ShardReport:
        if fresh and not taken:
            return self._do(taken)
        redoing.request()  # files of an attempt at another version may be in the output folder
        return self._redo(redoing, taken)

    def _redo(self, redoing: Redoing, taken: tuple[Source, ...]) -> ShardReport:
        """Do the shard beside what it is, and put the new version in its place."""
        while redoing.requested():
            new, report = redoing.finished(), None
            if new is None:
                new = redoing.beside([part.source for part in self.shard.slices])
                attempt = ShardAttempt(self.shard, self.job, self.resources, new)
                attempt.tally = self.tally
                report = attempt.transaction.adopt() or attempt._do(taken)
            counts = redoing.take(new, self.transaction.sweep)
            if counts is not None:
                return report or ShardReport(self.shard.index, "adopted", counts)
        done = self.transaction.mark()  # another attempt was first, or the request was withdrawn
        return ShardReport(self.shard.index, "skipped", done or ShardCounts())

    def _do(self, taken: tuple[Source, ...]) -> ShardReport:
        """All of the shard, and its commit."""
        require_room(self.job.temp_dir)
        start = time.perf_counter()
        folder = Path(tempfile.mkdtemp(prefix="shard-", dir=self.job.temp_dir))
        try:
            with self.resources.step() as step:
                errors, sink = self._stream(folder, step)
            report = ShardReport(
                self.shard.index,
                "done",
                self.counts,
                time.perf_counter() - start,
                dict(self.seconds),
                notices=self.attempt_notices,
                sources=taken,
            )
            return self.transaction.commit(report, sink.path, errors, sink.images)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _stream(self, folder: Path, step: Step) -> tuple[Path | None, Sink]:
        """All rows through the stages into local files."""
        work, owned = self.job.work, self.resources
        fetch: Fetch = partial(fetch_image, max_bytes=self.job.max_image_bytes, stop=self.over)
        if self.job.on_fetch_error == "reject":
            own_stores = {store_of(part.source.uri) for part in self.shard.slices}
            fetch = rejecting(fetch, own_stores, owned.dead_hosts)
        pools = Pools(Pool(owned.decode_pool), Pool(owned.fetch_pool))
        preparer = work.preparer(self.job.schema, fetch, pools)
        errors = ErrorLog(folder / "errors.parquet")
        path, schema = folder / f"{self.shard.name}.{work.main.suffix}", self.job.table_schema()
        pools_of_sink = (owned.decode_pool, owned.upload_pool)
        sink = work.sink(SinkTarget(path, schema, *pools_of_sink, self.folder, self.shard.name, self.job.seal))
        writer = Behind(self._timed("write", partial(self._write, sink)), WRITE_BEHIND)
        waiting = ahead(self._submitted(preparer), READ_AHEAD)
        try:
            batches = work.batches(self._prepared(waiting, errors), step.batch_size)
            for item in work.after(self._modelled(batches, step)):
                if isinstance(item, Refusal):
                    self._refuse([item], errors)
                else:
                    writer.put(item)
                    self.resources.monitor.add(rows_written=item.num_rows)
            writer.close()
            self.counts.notices = dict(sorted((Counter(self.counts.notices) + self.notices).items()))
            counts = self.counts
            if counts.rows_read != counts.rows_written + counts.rows_rejected + counts.rows_filtered:
                raise RuntimeError(f"rows were lost or made up, please report this: {counts.to_json()}")
            self.seconds["decode"] = pools.decode.seconds
            errors_path = errors.close()
            self.counts.errors_file = self.transaction.errors_name(errors_path)
            sink.finish(self.counts)
            return errors_path, sink
        except BaseException:
            writer.close(drop=True)
            sink.abort()
            errors.abort()
            raise
        finally:
            self.share.close()
            self.over.set()
            waiting.close()
            for pool in pools:
                pool.cancel()

    def _modelled(self, batches: Iterator[pa.RecordBatch], step: Step) -> Iterator[pa.RecordBatch]:
        run_model = self._timed("model", step)
        for batch in batches:
            if self.resources.monitor.stop_requested():
                raise Stopped
            one_batch = self.resources.pacer.batch(self.tally, batch.num_rows, step.batch_size)
            with self.resources.calling(step), one_batch:
                result = run_model(batch)
            self.resources.memory.after_batch()
            yield result

    def _write(self, sink: Sink, batch: pa.RecordBatch) -> None:
        sink.write(batch)
        self.counts.rows_written += batch.num_rows

    def _submitted(self, preparer: Preparer) -> Iterator[tuple[int, Callable[[], Prepared]]]:
        """Read the slices; every batch goes into the pools at once. Runs in the thread that reads ahead."""
        row = 0
        notices: Counter[str] = Counter()
        for source in dict.fromkeys(part.source for part in self.shard.slices):
            self.job.work.check_source(source)
        batches = read_slices(self.shard.slices, self.job.schema, self.job.max_image_bytes, notices)
        while (batch := self._read(batches)) is not None:
            rows = self.job.work.rows_prepared or max(1, batch.num_rows)
            for start in range(0, batch.num_rows, rows):
                part = batch.slice(start, rows)
                size = part.nbytes
                if not self.share.acquire(size):
                    return
                yield size, preparer(part, row + start)
            row += batch.num_rows
        touched = notices.pop(OTHER_TIME, 0)
        self.attempt_notices = {OTHER_TIME: touched} if touched else {}
        self.counts.notices = dict(sorted(notices.items()))

    def _read(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        start = time.perf_counter()
        try:
            return next(batches, None)
        except FileNotFoundError as error:
            raise SourceChanged(f"{error}: it is gone since the plan was made: restore it") from error
        finally:
            seconds = time.perf_counter() - start
            self.seconds["read"] += seconds
            self.resources.monitor.add(read_seconds=seconds)

    def _prepared(self, waiting: Iterator[tuple[int, Callable[[], Prepared]]], errors: ErrorLog) -> Iterator[Prepared]:
        """Wait for the pools, in order; count the rows read, count and log the refused ones."""
        for size, result in waiting:
            prepared = result()
            self.share.release(size)
            self.counts.rows_read += prepared.rows_read
            self.counts.missing_captions += prepared.missing_captions
            self.notices.update(prepared.notices)
            self._refuse(prepared.refusals, errors, prepared.rows_read)
            self.tally.add(len(prepared.refusals), len(prepared.refusals))
            yield prepared

    def _refuse(self, refusals: list[Refusal], errors: ErrorLog, rows_read: int = 0) -> None:
        """Count `rows_read` more rows, and count and log those of them, or of earlier ones, that are refused."""
        rejected: Counter[str] = Counter()
        for item in refusals:
            if isinstance(item.cause, RowRejected):
                errors.add(item.key, item.uri, item.stage, item.cause.code, item.cause.message)
                self.counts.reject(item.cause.code)
                rejected[item.cause.code] += 1
            else:
                self.counts.filter(item.cause.reason)
        self.resources.monitor.add(
            rows_read=rows_read, rows_rejected=rejected.total(), rows_filtered=len(refusals) - rejected.total()
        )
        self.resources.rate.add(rows_read, rejected)

    def _timed(self, stage: str, call: Callable[[pa.RecordBatch], T]) -> Callable[[pa.RecordBatch], T]:
        def timed(batch: pa.RecordBatch) -> T:
            start = time.perf_counter()
            result = call(batch)
            seconds = time.perf_counter() - start
            self.seconds[stage] += seconds
            self.resources.monitor.add(**{f"{stage}_seconds": seconds})
            return result

        return timed


def attempt_apart(job: Job, index: int) -> ShardReport:
    """One attempt at a shard in a process of its own."""
    job = replace(job, scratch=None)  # whose counters its parent keeps
    resources = Resources(
        make_steps(job), decode_threads=job.decode_threads, max_error_rate=job.max_error_rate, monitor=Monitor(None)
    )
    attempt = ShardAttempt(load_shard(job.output, index), job, resources)
    attempt.apart = True
    return guarded(index, resources, attempt.run)

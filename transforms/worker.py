"""One shard on one worker: read, prepare, model, write, commit. Streams in batches; nothing raised escapes."""

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

from transforms.commit import ShardTransaction
from transforms.errors import EnvironmentFault, RowRejected, SourceChanged, Stopped, UsageError
from transforms.flow import Behind, ahead
from transforms.job import Job
from transforms.layout import Layout
from transforms.local_gpus import claim_gpus
from transforms.preparing import PrepareCodes, Prepared, PrepareImages, Preparer, full_batches
from transforms.reports import STAGES, ShardCounts, ShardReport
from transforms.resources import Resources, require_room
from transforms.shards import Shard
from transforms.sinks import PictureFileSink, PictureTableSink, Sink, TarSink, TokenSink
from transforms.sources import fetch_image, read_slices
from transforms.sources.files import check_unchanged
from transforms.steps import DecodeStep, EncodeStep, Step
from transforms.tables import ErrorLog
from transforms.token_files import mismatch, token_provenance

READ_AHEAD = 2  # batches read and being prepared while the model works
WRITE_BEHIND = 2  # batches through the model and not yet written
T = TypeVar("T")
log = logging.getLogger("vqbeam")


def make_steps(job: Job) -> list[Step]:
    """The model step of a job for each device of this process; weights are not loaded yet."""
    kind = EncodeStep if job.command == "encode" else DecodeStep
    return [kind(replace(job.model, device=device)) for device in _devices(job.model.device, job.processes)]


def _devices(device: str, processes: int) -> list[str]:
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if gpus < 2:
        return [device]
    return [f"cuda:{number}" for number in claim_gpus(gpus, processes)]


def run_shard(shard: Shard, job: Job, resources: Resources) -> ShardReport:
    """Do one shard, unless it is done; never raises but for a request of the process itself to end."""
    return guarded(shard.index, resources, lambda: attempt_shard(shard, job, resources))


def attempt_shard(shard: Shard, job: Job, resources: Resources) -> ShardReport:
    """Do one shard, unless it is done. Raises whatever goes wrong."""
    return _ShardRun(shard, job, resources).run()


def guarded(index: int, resources: Resources, attempt: Callable[[], ShardReport]) -> ShardReport:
    """What `attempt` at shard `index` reports; where it raises, that the shard failed, and why."""
    start = time.perf_counter()
    try:
        report = attempt()
    except Stopped:
        return ShardReport(index, "stopped")
    except Exception as error:  # raised further, it would end the whole pipeline
        environment = isinstance(error, EnvironmentFault | UsageError)
        reason = str(error) if environment else f"{type(error).__name__}: {error}"
        if not environment and not isinstance(error, OSError):
            log.exception("shard %05d", index)
        report = ShardReport(index, "failed", seconds=time.perf_counter() - start, reason=reason)
    finished = "shards_failed" if report.status == "failed" else "shards_done"
    resources.monitor.add(**{finished: 1})
    return report


class _ShardRun:
    """The state of one attempt at one shard."""

    def __init__(self, shard: Shard, job: Job, resources: Resources) -> None:
        self.shard = shard
        self.job = job
        self.resources = resources
        self.layout = Layout(job.output)
        image_layout = job.picture.image_layout if job.picture is not None else None
        suffix = "tar" if image_layout == "webdataset" else "parquet"
        main = self.layout.tar(shard.name) if suffix == "tar" else self.layout.data(shard.name)
        pictures = self.layout.images(shard.name) if image_layout == "files" else None
        self.transaction = ShardTransaction(self.layout, shard.name, main, job.version, pictures)
        self.local_name = f"{shard.name}.{suffix}"
        self.counts = ShardCounts()
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.share = resources.budget.share()
        self.over = threading.Event()

    def run(self) -> ShardReport:
        if self.resources.monitor.stop_requested():
            raise Stopped
        done = self.transaction.mark()
        if done is not None:
            return ShardReport(self.shard.index, "skipped", done)
        adopted = self.transaction.adopt()
        if adopted is not None:
            return adopted
        require_room(self.job.temp_dir)
        start = time.perf_counter()
        folder = Path(tempfile.mkdtemp(prefix="shard-", dir=self.job.temp_dir))
        try:
            with self.resources.step() as step:
                errors, sink = self._stream(folder, step)
            report = ShardReport(self.shard.index, "done", self.counts, time.perf_counter() - start, dict(self.seconds))
            return self.transaction.commit(report, sink.path, errors, sink.pictures)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _stream(self, folder: Path, step: Step) -> tuple[Path | None, Sink]:
        """All rows through the stages into local files."""
        preparer = self._preparer()
        errors = ErrorLog(folder / "errors.parquet")
        sink = self._sink(folder / self.local_name)
        writer = Behind(self._timed("write", partial(self._write, sink)), WRITE_BEHIND)
        waiting = ahead(self._submitted(preparer), READ_AHEAD)
        try:
            run_model = self._timed("model", step)
            for batch in full_batches(self._prepared(waiting, errors), step.batch_size, preparer.payload):
                if self.resources.monitor.stop_requested():
                    raise Stopped
                writer.put(run_model(batch))
                self.resources.monitor.add(rows_written=batch.num_rows)
            writer.close()
            self._check_balance()
            self.seconds["decode"] = preparer.seconds
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
            preparer.cancel()

    def _write(self, sink: Sink, batch: pa.RecordBatch) -> None:
        sink.write(batch)
        self.counts.rows_written += batch.num_rows

    def _check_balance(self) -> None:
        counts = self.counts
        if counts.rows_read != counts.rows_written + counts.rows_rejected + counts.rows_filtered:
            raise RuntimeError(f"rows were lost or made up, please report this: {counts.to_json()}")

    def _submitted(self, preparer: Preparer) -> Iterator[tuple[int, Callable[[], Prepared]]]:
        """Read the slices; every batch goes into the pools at once. Runs in the thread that reads ahead."""
        row = 0
        notices: Counter[str] = Counter()
        self._check_codebook()
        batches = read_slices(self.shard.slices, self.job.schema, self.job.fetch, notices)
        while (batch := self._read(batches)) is not None:
            size = batch.nbytes
            if not self.share.acquire(size):
                return
            yield size, preparer.submit(batch, row)
            row += batch.num_rows
        self.counts.notices = dict(sorted(notices.items()))

    def _check_codebook(self) -> None:
        if self.job.expected_codebook is None:
            return
        for source in dict.fromkeys(part.source for part in self.shard.slices):
            check_unchanged(source)
            problem = mismatch(source.uri, token_provenance(source.uri), self.job.expected_codebook)
            if problem:
                raise EnvironmentFault(problem)

    def _read(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        start = time.perf_counter()
        try:
            return next(batches, None)
        except FileNotFoundError as error:
            raise SourceChanged(f"{error}: it was there when the job was planned and is gone now") from error
        finally:
            seconds = time.perf_counter() - start
            self.seconds["read"] += seconds
            self.resources.monitor.add(read_seconds=seconds)

    def _prepared(self, waiting: Iterator[tuple[int, Callable[[], Prepared]]], errors: ErrorLog) -> Iterator[Prepared]:
        """Wait for the pools, in order; count and log what was refused."""
        for size, result in waiting:
            prepared = result()
            self.share.release(size)
            rejected: Counter[str] = Counter()
            for item in prepared.refusals:
                if isinstance(item.cause, RowRejected):
                    errors.add(item.key, item.uri, item.stage, item.cause.code, item.cause.message)
                    self.counts.reject(item.cause.code)
                    rejected[item.cause.code] += 1
                else:
                    self.counts.filter(item.cause.reason)
            self.counts.rows_read += prepared.rows_read
            self.counts.missing_captions += prepared.missing_captions
            self.resources.monitor.add(
                rows_read=prepared.rows_read,
                rows_rejected=rejected.total(),
                rows_filtered=len(prepared.refusals) - rejected.total(),
            )
            self.resources.rate.add(prepared.rows_read, rejected)
            yield prepared

    def _timed(self, stage: str, call: Callable[[pa.RecordBatch], T]) -> Callable[[pa.RecordBatch], T]:
        def timed(batch: pa.RecordBatch) -> T:
            start = time.perf_counter()
            result = call(batch)
            seconds = time.perf_counter() - start
            self.seconds[stage] += seconds
            self.resources.monitor.add(**{f"{stage}_seconds": seconds})
            return result

        return timed

    def _preparer(self) -> Preparer:
        job, pools = self.job, self.resources
        if job.image is None:
            return PrepareCodes(job.codes_per_image, job.codebook_size)
        fetch = partial(fetch_image, options=job.fetch, stop=self.over)
        return PrepareImages(job.image, job.schema, fetch, pools.decode_pool, pools.fetch_pool, job.require_caption)

    def _sink(self, path: Path) -> Sink:
        job, pools = self.job, self.resources
        schema = job.table_schema()
        if job.picture is None:
            return TokenSink(path, schema, job.codebook_size)
        if job.picture.image_layout == "files":
            return PictureFileSink(
                path, schema, job.picture, pools.decode_pool, pools.upload_pool, self.layout, self.shard.name
            )
        if job.picture.image_layout == "webdataset":
            return TarSink(path, schema, job.picture, pools.decode_pool)
        return PictureTableSink(path, schema, job.picture, pools.decode_pool)

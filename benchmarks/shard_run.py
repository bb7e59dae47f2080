"""The whole pipeline of a worker on one shard: read a tar, decode JPEGs, model, write Parquet, commit."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from models.vqgan.codec import TorchCodec
from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources
from transforms.engine.worker import run_shard
from transforms.errors import ShardFailed
from transforms.images import ImageOptions
from transforms.inputs import InputRequest, plan_sources
from transforms.ledger.types import Shard, Slice
from transforms.work.encode import Encode
from transforms.work.step import EncodeStep, ModelSettings


class ShardRunner:
    """What a worker process of `vqbeam encode` owns, with a model that is loaded already, and a tar to read."""

    def __init__(self, codec: TorchCodec, tar: Path, folder: Path) -> None:
        plan = plan_sources(InputRequest(patterns=(str(tar),)), rows_per_shard=1 << 30)
        (piece,) = plan.pieces
        settings = ModelSettings(
            name=codec.name,
            cache_dir=str(folder),
            backend="torch",
            device=str(codec.device),
            dtype=codec.dtype,
            batch_size=codec.batch_size,
            threads=codec.threads,
        )
        config = codec.config
        self._source = piece.slice.source
        self._folder = folder
        self._job = Job(
            work=Encode(settings, ImageOptions(size=config.resolution), config.codes_per_image, config.n_embed),
            output="",
            schema=plan.schema,
            provenance={},
            version="benchmark",
            decode_threads=codec.threads,
        )
        self._resources = Resources(
            [EncodeStep(settings, codec)],
            decode_threads=codec.threads,
            max_error_rate=0.0,
            monitor=Monitor(None),
        )

    def __call__(self, rows: int) -> float:
        """Images/s over the first `rows` rows of the tar, from the first byte read to the commit."""
        shard = Shard(0, (Slice(self._source, 0, rows),))
        with tempfile.TemporaryDirectory(dir=self._folder) as output:
            job = Job(**{**vars(self._job), "output": output})
            start = time.perf_counter()
            report = run_shard(shard, job, self._resources)
            seconds = time.perf_counter() - start
        if report.status != "done" or report.counts.rows_written != rows:
            raise ShardFailed(f"the shard of {rows} rows was not encoded: {report}")
        return rows / seconds

"""One shard, run in this process with plain arithmetic instead of a network: for tests of the transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.image_tokenizer import TokenizerSpec
from tests.support.images import encoded, scene
from transforms.batch import CODES, ENCODING, PIXELS, fixed_lists, to_images, to_rows
from transforms.engine.job import Job
from transforms.engine.monitor import Monitor
from transforms.engine.resources import Resources
from transforms.engine.worker import ShardAttempt, guarded
from transforms.image_options import ImageOptions
from transforms.inputs.plan import make_shards, plan_sources
from transforms.inputs.request import InputRequest, InputSchema
from transforms.ledger.plan import Plan, store_segment
from transforms.ledger.types import Shard, ShardReport
from transforms.ledger.verify import problems
from transforms.outputs import layout as layouts
from transforms.outputs.layout import ImageOutput, main_folders
from transforms.work.decode import Decode
from transforms.work.encode import Encode
from transforms.work.step import ModelSettings

SIDE = 16
CODES_PER_IMAGE = 4
CODEBOOK = 300
SPEC = TokenizerSpec("none", "none", SIDE, SIDE // 2, CODEBOOK, flops=0, image_bytes=0)
LAYOUTS = ("tokens", *layouts.LAYOUTS)  # what a shard may write: encode's, and decode's
MODEL = ModelSettings("none", "none", "torch", "cpu", "float32", batch_size=4, threads=1)


@dataclass
class PlainStep:
    """Encodes an image to the mean colours of its quarters, and decodes each code to a grey quarter.

    Attempts with different values of `shift` give different results.
    """

    batch_size: int = 4
    shift: int = 0

    def setup(self) -> None:
        return

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if PIXELS in batch.schema.names:
            quarters = to_images(batch.column(PIXELS)).reshape(-1, 2, SIDE // 2, 2, SIDE // 2, 3).mean((2, 4, 5))
            codes = (quarters.reshape(-1, CODES_PER_IMAGE).astype(np.uint16) + self.shift) % CODEBOOK
            return batch.drop_columns([PIXELS]).append_column(ENCODING, fixed_lists(codes))
        greys = ((to_rows(batch.column(CODES)) + self.shift) % 256).astype(np.uint8).reshape(-1, 2, 2, 1)
        pixels = greys.repeat(SIDE // 2, 1).repeat(SIDE // 2, 2).repeat(3, 3)
        return batch.drop_columns([CODES]).append_column(PIXELS, fixed_lists(pixels))


@dataclass(frozen=True)
class ShardCase:
    """A planned job and its shards."""

    job: Job
    shards: list[Shard]

    @property
    def output(self) -> str:
        return self.job.output

    def differing(self) -> ShardCase:
        """The same job with one more rejected row, as another machine might run it."""
        if isinstance(self.job.work, Encode):
            return self.working(require_caption=True)
        return self.working(spec=replace(SPEC, codebook_size=200))

    def working(self, **changed: Any) -> ShardCase:
        """The same job with other settings of its command."""
        return replace(self, job=replace(self.job, work=replace(self.job.work, **changed)))  # type: ignore[type-var]


def images(rows: int) -> list[bytes | None]:
    """Different PNGs; the second is HTML, and the last but one is missing."""
    data: list[bytes | None] = []
    for row in range(rows):
        shade = scene(SIDE + row, SIDE).point(lambda value, row=row: (value + 9 * row) % 256)
        data.append(encoded(shade, "PNG"))
    data[1] = b"<html>not found</html>"
    data[-2] = None
    return data


def write_images(path: Path, rows: int = 7) -> Path:
    """A Parquet file of images; the third has no caption."""
    captions = [None if row == 2 else f"image {row}" for row in range(rows)]
    table = {"key": [f"Key/{row}" for row in range(rows)], "image": images(rows), "caption": captions}
    pq.write_table(pa.table(table), path)
    return path


def write_tokens(path: Path, rows: int = 7) -> Path:
    """A Parquet file of codes; the second row has too few, the fourth one of 250."""
    codes = [[(row * 20 + code) % 200 for code in range(CODES_PER_IMAGE)] for row in range(rows)]
    codes[1] = codes[1][:-1]
    codes[3][0] = 250
    table = {"key": [f"Key/{row}" for row in range(rows)], "encoding": codes, "caption": ["c"] * rows}
    pq.write_table(pa.table(table), path)
    return path


def shard_case(folder: Path, layout: str, output: str, rows: int = 7, rows_per_shard: int = 10_000) -> ShardCase:
    """Writes input below `folder`, and a plan in `output` unless one is stored there."""
    encode = layout == "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / ("images.parquet" if encode else "tokens.parquet")
    if not source.exists():
        (write_images if encode else write_tokens)(source, rows)
    planned = plan_sources(InputRequest((str(source),), kind="images" if encode else "codes"), rows_per_shard)
    shards = make_shards(planned.pieces, rows_per_shard)
    temp = folder / "temp"
    temp.mkdir(exist_ok=True)
    job = Job(
        work=Encode(MODEL, ImageOptions(size=SIDE), SPEC)
        if encode
        else Decode(MODEL, ImageOutput("png", layout), SPEC),
        output=output,
        schema=planned.schema,
        provenance={"command": "test"},
        version="1",
        max_error_rate=1.0,
        temp_dir=str(temp),
    )
    store_segment(output, plan_of(job, planned.schema), shards)
    return ShardCase(job, shards)


def plan_of(job: Job, schema: InputSchema) -> Plan:
    return Plan("test", {"test": 1}, {}, schema.to_json())


@contextmanager
def resources(step: Any = None, scratch: str | None = None, **options: Any) -> Iterator[Resources]:
    """What a worker process owns, while the context is open."""
    defaults: dict[str, Any] = {"decode_threads": 2, "max_error_rate": 1.0}
    owned = Resources([step or PlainStep()], monitor=Monitor(scratch), **(defaults | options))
    try:
        yield owned
    finally:
        for pool in (owned.fetch_pool, owned.decode_pool, owned.upload_pool):
            pool.shutdown()


def attempt(case: ShardCase, step: Any = None, index: int = 0) -> ShardReport:
    """Attempts a shard as a new process would."""
    with resources(step) as owned:
        return run_shard(case.shards[index], case.job, owned)


def run_shard(shard: Shard, job: Job, owned: Resources) -> ShardReport:
    """One attempt at a shard, by a process with these resources."""
    return guarded(shard.index, owned, lambda: ShardAttempt(shard, job, owned).run())


def faults_of(case: ShardCase) -> list[str]:
    """What `vqbeam verify` reports."""
    plan = plan_of(case.job, case.job.schema)
    stored = store_segment(case.output, plan, case.shards)
    return list(problems(case.output, stored, main_folders(), lambda number: None))


def snapshot(output: str, hidden: bool = False) -> dict[str, bytes]:
    """Every file below an output folder; marks without their times, and no `last_run.json`."""
    fs, root = fsspec.core.url_to_fs(output)
    fs.invalidate_cache()
    files: dict[str, bytes] = {}
    for path in fs.find(root):
        name = path[len(root.rstrip("/")) + 1 :]
        if hidden or not name.rsplit("/", 1)[-1].startswith("."):
            data = fs.cat_file(path)
            files[name] = without_times(data) if "/stats/" in name and name.endswith(".json") else data
    files.pop("_vqbeam/last_run.json", None)
    return files


def without_times(mark: bytes) -> bytes:
    values = {name: value for name, value in json.loads(mark).items() if name not in ("seconds", "timings")}
    return json.dumps(values, sort_keys=True).encode()

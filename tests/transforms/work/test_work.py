"""What a command may do in a shard: several images a row, batches of any cut, a stage after the model."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.image_tokenizer import TokenizerSpec
from tests.support.shard_runs import PlainStep, ShardCase, attempt, faults_of, resources, run_shard, shard_case
from transforms.batch import CODES, SAMPLE
from transforms.engine.job import Job
from transforms.errors import RowFiltered, RowRejected
from transforms.inputs.request import InputSchema
from transforms.ledger.commit import MainObject
from transforms.outputs.layout import Columns, Sink, SinkTarget
from transforms.work.decode import Decode
from transforms.work.prepare import (
    Fetch,
    Pools,
    Prepared,
    Preparer,
    Refusal,
    full_batches,
    in_pool,
    prepare_codes,
    refusal,
)
from transforms.work.step import Step
from transforms.work.work import Work

SAMPLES = 3


def prepare_samples(batch: pa.RecordBatch, first_row: int, spec: TokenizerSpec) -> Prepared:
    """Counts every row as `SAMPLES` images, good or not."""
    one = prepare_codes(batch, first_row, spec)
    refusals = [item for item in one.refusals for _ in range(SAMPLES)]
    return replace(one, refusals=refusals, rows_read=one.rows_read * SAMPLES)


@dataclass(frozen=True)
class Sampled(Work):
    """Every row of codes is drawn `SAMPLES` times, the codes raised by the number of the sample. Of a row's images
    the last `keep` are kept; those of the row `broken` are rejected."""

    plain: Decode
    keep: int = 1
    broken: str = ""

    @property
    def main(self) -> MainObject:
        return self.plain.main

    def columns(self, schema: InputSchema) -> Columns:
        return [("key", pa.string()), (SAMPLE, pa.int32()), *self.plain.written.layout.columns]

    def preparer(self, schema: InputSchema, fetch: Fetch, pools: Pools) -> Preparer:
        return in_pool(pools.decode, partial(prepare_samples, spec=self.plain.spec))

    def batches(self, parts: Iterable[Prepared], size: int) -> Iterator[pa.RecordBatch]:
        assert size == 4
        for rows in full_batches(parts, 2, CODES):
            for sample in range(SAMPLES):
                yield rows.append_column(SAMPLE, pa.array([sample] * rows.num_rows, pa.int32()))

    def step(self, device: str) -> Step:
        return PlainStep()

    def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
        while group := list(itertools.islice(batches, SAMPLES)):
            drawn = pa.Table.from_batches(group).combine_chunks().to_batches()[0]
            kept: list[int] = []
            for i in np.argsort(drawn.column("row").to_numpy(), kind="stable").tolist():
                if drawn.column("key")[i].as_py() == self.broken:
                    yield refusal(drawn, i, "rank", RowRejected("broken_image", "came to nothing"))
                elif drawn.column(SAMPLE)[i].as_py() < SAMPLES - self.keep:
                    yield refusal(drawn, i, "rank", RowFiltered("keep_best"))
                else:
                    kept.append(i)
            if kept:
                yield drawn.take(pa.array(kept))

    def sink(self, target: SinkTarget) -> Sink:
        return self.plain.written.sink(target, self.chunks)

    def chunks(self, batch: pa.RecordBatch) -> list[Mapping[str, str]]:
        return [{"prompt": key} for key in batch.column("key").to_pylist()]


def sampled_case(folder: Path, layout: str, keep: int = 1, broken: str = "") -> ShardCase:
    """Seven rows, one of which has too few codes."""
    case = shard_case(folder, layout, str(folder / "out"))
    assert isinstance(case.job.work, Decode)
    return replace(case, job=replace(case.job, work=Sampled(case.job.work, keep, broken)))


def test_every_image_of_a_row_is_written_filtered_or_rejected(tmp_path: Path) -> None:
    case = sampled_case(tmp_path, "files", broken="Key/4")
    counts = attempt(case).counts
    assert counts.rows_read == 7 * SAMPLES
    assert counts.rows_written == 5
    assert counts.errors == {"wrong_code_count": SAMPLES, "broken_image": SAMPLES}
    assert counts.filters == {"keep_best": 5 * (SAMPLES - 1)}
    errors = pq.read_table(f"{case.output}/{counts.errors_file}").to_pylist()
    late = [row for row in errors if row["stage"] == "rank"]
    assert [(row["key"], row["error"], row["message"]) for row in late] == [
        ("Key/4", "broken_image", "came to nothing")
    ] * SAMPLES
    assert all("tokens.parquet" in row["uri"] for row in late)
    assert faults_of(case) == []


def test_images_of_a_row_are_told_apart_by_their_sample(tmp_path: Path) -> None:
    case = sampled_case(tmp_path, "files", keep=2)
    attempt(case)
    rows = pq.read_table(f"{case.output}/data/00000.parquet").to_pylist()
    assert [(row["key"], row["sample"]) for row in rows[:3]] == [("Key/0", 1), ("Key/0", 2), ("Key/2", 1)]
    assert [row["image_path"] for row in rows[:2]] == [
        "images/00000/0000000-key-0_1.png",
        "images/00000/0000000-key-0_2.png",
    ]
    assert faults_of(case) == []


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_text_chunks_of_an_image_are_those_of_its_row(tmp_path: Path, layout: str) -> None:
    case = sampled_case(tmp_path, layout)
    attempt(case)
    found = [png.text for png in written_images(case.output, layout)]  # type: ignore[attr-defined]
    assert found == [{"prompt": f"Key/{row}"} for row in (0, 2, 3, 4, 5, 6)]


def written_images(output: str, layout: str) -> list[Image.Image]:
    """The PNGs of the first shard, in order, read as far as their text."""
    if layout == "webdataset":
        with tarfile.open(f"{output}/tars/00000.tar") as tar:
            members = [member for member in tar.getmembers() if member.name.endswith(".png")]
            data = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    else:
        table = pq.read_table(f"{output}/data/00000.parquet")
        if layout == "parquet":
            data = [cell["bytes"] for cell in table["image"].to_pylist()]
        else:
            data = [Path(output, path).read_bytes() for path in table["image_path"].to_pylist()]
    images = [Image.open(io.BytesIO(one)) for one in data]
    for image in images:
        image.load()
    return images


def test_too_many_rejected_after_the_model_fail_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.engine.resources.ROWS_BEFORE_RATE", 1)
    case = sampled_case(tmp_path, "files", broken="Key/0")
    with resources(max_error_rate=0.2) as owned:
        report = run_shard(case.shards[0], case.job, owned)
    assert report.status == "failed"
    assert "5 of 21 rows rejected so far (3 wrong_code_count, 2 broken_image)" in report.reason


def test_a_work_that_loses_an_image_after_the_model_fails_the_shard(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Losing(Sampled):
        def after(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Refusal]:
            yield from itertools.islice(super().after(batches), 1, None)

    case = sampled_case(tmp_path, "files")
    work = case.job.work
    assert isinstance(work, Sampled)
    report = attempt(replace(case, job=replace(case.job, work=Losing(work.plain))))
    assert report.status == "failed"
    assert "rows were lost or made up" in report.reason


def test_a_job_with_another_work_can_be_pickled(tmp_path: Path) -> None:
    job = sampled_case(tmp_path, "files").job
    copy: Job = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert json.loads(copy.table_schema().metadata[b"vqbeam"]) == {"command": "test"}

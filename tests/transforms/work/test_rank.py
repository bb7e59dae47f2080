"""One shard of `vqbeam rank`: what its stages do to rows, and that its transaction holds when it is cut off."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.clip.pixels import read_clip_pixels
from tests.support.images import encoded, scene
from tests.support.injected_faults import Killed, counted_writes, kill_at
from tests.support.shard_runs import ShardCase, attempt, faults_of, images, shard_case, snapshot
from tests.support.tiny_clip import SIDE
from transforms.batch import first_caption
from transforms.engine.worker import READ_AHEAD
from transforms.errors import RowFiltered, RowRejected
from transforms.image_options import ImageLimits
from transforms.inputs.fetch import fetch_image
from transforms.work.prepare import Refusal
from transforms.work.rank import Rank, ScoreStep, decode_for_clip
from transforms.work.step import ClipSettings


@pytest.fixture(scope="module")
def step(tiny_clip: Path) -> ScoreStep:
    return ScoreStep(ClipSettings(str(tiny_clip), "none", "cpu", batch_size=4, threads=1))


def rank_of(step: ScoreStep) -> Rank:
    return Rank(step.clip, read_clip_pixels(Path(step.clip.name), SIDE), ImageLimits())


def rank_case(folder: Path, step: ScoreStep, output: str = "out") -> ShardCase:
    """Seven rows: one lacks its image, one holds other bytes, one lacks its caption."""
    case = shard_case(folder, "tokens", str(folder / output))
    return replace(case, job=replace(case.job, work=rank_of(step)))


def test_a_shard_killed_at_any_write_ends_as_if_it_had_not_been(
    tmp_path: Path, step: ScoreStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    quiet = rank_case(tmp_path, step).working(keep_images=True)
    with counted_writes("local", quiet.output) as writes:
        assert attempt(quiet, step).status == "done"
    assert writes.count >= 3
    expected = snapshot(quiet.output)
    for number in range(writes.count):
        case = rank_case(tmp_path, step, f"out {number}").working(keep_images=True)
        with counted_writes("local", case.output) as cut:
            cut.hook = kill_at(number, before=bool(number % 2))
            with pytest.raises(Killed):
                attempt(case, step)
        attempt(case, step)
        assert snapshot(case.output) == expected
        assert faults_of(case) == []


def test_every_row_is_written_filtered_or_rejected(tmp_path: Path, step: ScoreStep) -> None:
    all_of = rank_case(tmp_path, step)
    attempt(all_of, step)
    scores = sorted(pq.read_table(f"{all_of.output}/data/00000.parquet")["clip_score"].to_pylist())
    assert len(scores) == 4

    case = rank_case(tmp_path, step, "some").working(min_clip_score=scores[2])
    counts = attempt(case, step).counts
    kept = pq.read_table(f"{case.output}/data/00000.parquet")["clip_score"].to_pylist()
    assert sorted(kept) == scores[2:]  # the bound itself stays
    assert counts.filters == {"min_clip_score": 2}
    assert counts.errors == {"missing_caption": 1, "missing_image": 1, "not_an_image": 1}
    assert counts.rows_read == 7


def test_image_files_are_written_unchanged(tmp_path: Path, step: ScoreStep) -> None:
    case = rank_case(tmp_path, step).working(keep_images=True)
    attempt(case, step)
    table = pq.read_table(f"{case.output}/data/00000.parquet")
    came = {f"Key/{row}": data for row, data in enumerate(images(7))}
    assert [cell["bytes"] for cell in table["image"].to_pylist()] == [came[key] for key in table["key"].to_pylist()]


@dataclass
class WatchedStep:
    """A step that notes, whenever it is called, how many files were fetched and have not been through it."""

    step: ScoreStep
    fetched: list[str] = field(default_factory=list)
    done: int = 0
    ahead: int = 0
    batch_size: int = 4

    def setup(self) -> None:
        self.step.setup()

    def fetch(self, uri: str, max_bytes: int, stop: Event, **options: Any) -> bytes:
        self.fetched.append(uri)
        return fetch_image(uri, max_bytes, stop, **options)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.ahead = max(self.ahead, len(self.fetched) - self.done)
        self.done += batch.num_rows
        return self.step(batch)


def test_files_that_rows_only_name_are_fetched_a_few_batches_ahead(
    tmp_path: Path, step: ScoreStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader, who sees only names, gives all of them at once."""
    names = [f"{row}.png" for row in range(60)]
    for row, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(scene(SIDE + row, SIDE), "PNG"))
    pq.write_table(pa.table({"image_path": names, "caption": names}), tmp_path / "images.parquet")
    watched = WatchedStep(step)
    monkeypatch.setattr("transforms.engine.worker.fetch_image", watched.fetch)
    case = rank_case(tmp_path, step).working(keep_images=True)
    assert attempt(case, watched).status == "done"
    table = pq.read_table(f"{case.output}/data/00000.parquet")
    assert [cell["path"] for cell in table["image"].to_pylist()] == names
    assert len(watched.fetched) == len(names)
    assert watched.ahead <= (READ_AHEAD + 3) * watched.batch_size


def test_rows_that_go_on_after_a_filter_keep_their_order_and_an_empty_batch_is_not_passed_on(step: ScoreStep) -> None:
    rank = replace(rank_of(step), min_clip_score=0.3)
    scores = [[0.5, 0.1, 0.3], [0.2, -0.9]]
    batches = [
        pa.record_batch(
            {
                "key": [f"{number}{i}" for i in range(len(part))],
                "uri": ["u"] * len(part),
                "row": list(range(len(part))),
                "clip_score": pa.array(part, pa.float32()),
            }
        )
        for number, part in enumerate(scores)
    ]
    after = list(rank.after(iter(batches)))
    refused = [item for item in after if isinstance(item, Refusal)]
    assert [item.key for item in refused] == ["01", "10", "11"]
    assert all(isinstance(item.cause, RowFiltered) for item in refused)
    assert [item["key"].to_pylist() for item in after if not isinstance(item, Refusal)] == [["00", "02"]]


def test_of_several_captions_the_first_with_words_is_scored() -> None:
    assert first_caption([None, "", " ", "a red apple", "b"]) == "a red apple"
    assert first_caption(" a\n") == " a\n"


def test_a_strip_that_would_grow_beyond_the_bound_of_pixels_is_rejected(step: ScoreStep) -> None:
    preprocess = rank_of(step).preprocess
    data = encoded(scene(4000, 1), "PNG")
    with pytest.raises(RowRejected, match="become 64000 x 16; max_image_pixels allows 1,000,000") as refused:
        decode_for_clip(data, ImageLimits(max_image_pixels=1_000_000), preprocess)
    assert refused.value.code == "too_many_pixels"
    image = decode_for_clip(data, ImageLimits(), preprocess)
    assert (image.original_width, image.pixels.shape) == (4000, (3, SIDE, SIDE))
    assert image.pixels.dtype == np.float32


def test_it_can_be_pickled(step: ScoreStep) -> None:
    assert pickle.loads(pickle.dumps(rank_of(step))) == rank_of(step)

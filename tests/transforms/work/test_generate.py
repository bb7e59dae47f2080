from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.batch import PIXELS, fixed_lists
from transforms.work.generate import ranked
from transforms.work.prepare import Refusal

SCORES = {0: [0.5, 0.9, 0.5, 0.1], 1: [0.3], 2: [0.2, 0.2, 0.8, 0.2, 0.4]}  # of each row's images


def batches(size: int, seen: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """The images of `SCORES` in batches; their only pixel tells row and sample."""
    rows = [(row, sample, score) for row, scores in SCORES.items() for sample, score in enumerate(scores)]
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if seen is not None:
            seen.append(len(part))
        yield pa.record_batch(
            {
                "key": [f"k{row}" for row, _, _ in part],
                "uri": ["u"] * len(part),
                "row": pa.array([row for row, _, _ in part]),
                "sample": pa.array([sample for _, sample, _ in part], pa.int32()),
                "clip_score": pa.array([score for _, _, score in part], pa.float32()),
                PIXELS: fixed_lists(np.array([[[10 * row + sample]] for row, sample, _ in part], np.uint8)),
            }
        )


def run(size: int, keep_best: int | None = None) -> tuple[list[tuple[int, int, int]], list[Refusal]]:
    """(row, sample, rank) in the order of the output, and what was filtered."""
    items = list(ranked(batches(size), keep_best))
    rows = [row for item in items if isinstance(item, pa.RecordBatch) for row in item.to_pylist()]
    assert all(row[PIXELS] == [10 * row["row"] + row["sample"]] for row in rows)
    order = [(row["row"], row["sample"], row["rank"]) for row in rows]
    return order, [item for item in items if isinstance(item, Refusal)]


def test_images_go_out_best_first_and_equals_by_sample() -> None:
    expected = [(0, 1, 1), (0, 0, 2), (0, 2, 3), (0, 3, 4), (1, 0, 1)]
    expected += [(2, 2, 1), (2, 4, 2), (2, 0, 3), (2, 1, 4), (2, 3, 5)]
    for size in (1, 2, 3, 4, 7, 100):
        assert run(size) == (expected, [])


def test_all_but_the_best_are_filtered_at_any_batch_size() -> None:
    for size in (1, 2, 3, 4, 7, 100):
        order, lost = run(size, keep_best=2)
        assert order == [(0, 1, 1), (0, 0, 2), (1, 0, 1), (2, 2, 1), (2, 4, 2)]
        assert [(item.row, item.key) for item in lost] == [(0, "k0")] * 2 + [(2, "k2")] * 3
        assert {str(item.cause) for item in lost} == {"not_best"}


def test_a_prompt_goes_out_as_soon_as_the_next_begins() -> None:
    seen: list[int] = []
    stream = ranked(batches(2, seen))
    first = next(stream)
    assert isinstance(first, pa.RecordBatch)
    assert first.column("row").to_pylist() == [0, 0, 0, 0, 1], "the third batch completes it"
    assert len(seen) == 3

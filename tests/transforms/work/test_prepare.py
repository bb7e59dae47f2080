"""The stage that rejects and filters, and the cutting of its good rows into full batches."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support.images import encoded, scene
from tests.support.shard_runs import SPEC
from transforms.batch import CODES, to_rows
from transforms.errors import RowRejected, ShardFailed
from transforms.image_options import ImageOptions
from transforms.images import decode_image
from transforms.inputs.request import InputSchema
from transforms.inputs.rows import batch_schema
from transforms.work.prepare import Pool, Pools, Prepared, PrepareImages, full_batches, prepare_codes, refused_rows

IMAGES = InputSchema("images", image="image", caption="caption")
DECODE = partial(decode_image, options=ImageOptions(size=16))
TOKENS = InputSchema("codes", codes="encoding", caption="caption")


def batch(schema: InputSchema, **columns: list[Any]) -> pa.RecordBatch:
    rows = len(next(iter(columns.values())))
    values = {"key": [f"k{row}" for row in range(rows)], "uri": [f"u#{row}" for row in range(rows)]} | columns
    arrow = batch_schema(schema)
    arrays = [pa.array(values.get(field.name, [None] * rows), field.type) for field in arrow]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def refusals(prepared: Prepared) -> list[tuple[int, str, str]]:
    return [
        (item.row, item.stage, item.cause.code if isinstance(item.cause, RowRejected) else item.cause.reason)
        for item in prepared.refusals
    ]


def prepare_images(one: pa.RecordBatch, fetch: Any = None, require_caption: bool = False) -> Prepared:
    with ThreadPoolExecutor(2) as decode, ThreadPoolExecutor(2) as waiting:
        pools = Pools(Pool(decode), Pool(waiting))
        return PrepareImages(DECODE, IMAGES, fetch, pools, require_caption)(one, 100)()


def test_good_rows_keep_their_order_and_the_others_end_with_their_reason() -> None:
    good = encoded(scene(20, 30), "PNG")
    prepared = prepare_images(
        batch(
            IMAGES,
            image=[good, b"", None, good, None],
            error_code=[None, None, "missing_image", None, None],
            error_message=[None, None, "no image", None, None],
            filtered=[None, None, None, None, "status"],
            caption=["a", "b", "c", None, "e"],
        )
    )
    assert refusals(prepared) == [
        (101, "decode", "empty_image"),
        (102, "read", "missing_image"),
        (104, "read", "status"),
    ]
    assert prepared.columns["key"].to_pylist() == ["k0", "k3"]
    assert prepared.columns["row"].to_pylist() == [100, 103]
    assert prepared.columns["original_width"].to_pylist() == [20, 20]
    assert prepared.columns["original_height"].to_pylist() == [30, 30]
    assert (prepared.rows_read, prepared.missing_captions) == (5, 1)
    assert [array.shape for array in prepared.arrays] == [(16, 16, 3)] * 2


def test_a_blank_caption_is_missing() -> None:
    captions = [None, "", "  ", "a"]
    refused = refused_rows(batch(IMAGES, caption=captions), require_caption=True)
    assert sorted(refused) == [0, 1, 2]
    assert {cause.code for _, cause in refused.values() if isinstance(cause, RowRejected)} == {"missing_caption"}
    assert refused_rows(batch(IMAGES, caption=captions), require_caption=False) == {}


def test_images_that_are_only_named_are_fetched() -> None:
    asked: list[str] = []

    def fetch(uri: str) -> bytes:
        asked.append(uri)
        if uri == "gone":
            raise RowRejected("image_not_found", "not there")
        return encoded(scene(16, 16), "PNG")

    prepared = prepare_images(batch(IMAGES, image_uri=["here", "gone"]), fetch)
    assert sorted(asked) == ["gone", "here"]
    assert refusals(prepared) == [(101, "decode", "image_not_found")]
    assert len(prepared.arrays) == 1


def test_a_fault_of_the_store_while_fetching_is_raised_and_rejects_nothing() -> None:
    def fetch(uri: str) -> bytes:
        raise ShardFailed("503")

    with pytest.raises(ShardFailed, match="503"):
        prepare_images(batch(IMAGES, image_uri=["here"]), fetch)


def test_calls_that_have_not_started_are_dropped_with_their_shard() -> None:
    """A server that hangs must not hold up the shards that come after the one that failed."""
    asked: list[str] = []
    release = threading.Event()

    def fetch(uri: str) -> bytes:
        asked.append(uri)
        assert release.wait(30)
        raise ShardFailed("timed out")

    with ThreadPoolExecutor(1) as executor:
        pool = Pool(executor)
        prepare = PrepareImages(DECODE, IMAGES, fetch, Pools(pool, pool), False)
        first = prepare(batch(IMAGES, image_uri=["a", "b"]), 0)
        prepare(batch(IMAGES, image_uri=["c"] * 50), 2)
        while not asked:
            pass
        pool.cancel()
        release.set()
        with pytest.raises(ShardFailed, match="timed out"):
            first()
    assert asked == ["a"]


def test_codes_are_checked_against_the_grid_and_the_codebook() -> None:
    cells = [[0, 1, 2, 3], [0], [0, 0, 0, 8], [-1, 0, 0, 0], None, [None, 1, 2, 3], [7, 7, 7, 7]]
    prepared = prepare_codes(batch(TOKENS, codes=cells), 0, replace(SPEC, codebook_size=8))
    assert refusals(prepared) == [
        (1, "decode", "wrong_code_count"),
        (2, "decode", "code_out_of_range"),
        (3, "decode", "code_out_of_range"),
        (4, "decode", "missing_codes"),
        (5, "decode", "missing_codes"),
    ]
    assert np.stack(prepared.arrays).tolist() == [[0, 1, 2, 3], [7, 7, 7, 7]]


def parts(*sizes: int) -> list[Prepared]:
    made = []
    first = 0
    for size in sizes:
        rows = range(first, first + size)
        arrays = [np.array([row, row], np.int32) for row in rows]
        made.append(Prepared(pa.RecordBatch.from_pydict({"n": pa.array(rows, pa.int64())}), arrays, [], size, 0))
        first += size
    return made


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [((3, 0, 5, 1), 4, [4, 4, 1]), ((10,), 3, [3, 3, 3, 1]), ((2, 2), 4, [4]), ((0, 0), 4, []), ((), 4, [])],
)
def test_batches_are_full_but_for_the_last_and_keep_rows_with_their_payload(
    sizes: tuple[int, ...], size: int, expected: list[int]
) -> None:
    batches = list(full_batches(parts(*sizes), size, CODES))
    assert [one.num_rows for one in batches] == expected
    rows = [row for one in batches for row in one.column("n").to_pylist()]
    assert rows == list(range(sum(sizes)))
    assert [row for one in batches for row in to_rows(one.column(CODES))[:, 0].tolist()] == rows


def test_no_more_rows_are_held_than_a_batch_and_a_part() -> None:
    taken: list[int] = []

    def watched() -> Any:
        for number, part in enumerate(parts(*[2] * 50)):
            taken.append(number)
            yield part

    stream = full_batches(watched(), 4, CODES)
    next(stream)
    assert taken == [0, 1]


def test_decoding_starts_when_a_batch_is_submitted_and_not_when_it_is_asked_for() -> None:
    class Counting(Executor):
        submitted = 0

        def submit(self, call: Any, *args: Any, **options: Any) -> Future[Any]:
            self.submitted += 1
            future: Future[Any] = Future()
            future.set_result(call(*args))
            return future

    executor = Counting()
    pool = Pool(executor)
    prepare = PrepareImages(DECODE, IMAGES, lambda uri: b"", Pools(pool, pool), False)
    result = prepare(batch(IMAGES, image=[encoded(scene(16, 16), "PNG")] * 3), 0)
    assert executor.submitted == 3
    assert len(result().arrays) == 3
    assert pool.seconds > 0

"""Inputs on Google Cloud Storage and S3, emulated: the same rows as from a local folder, for as many bytes."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.faulty_store import Answer, FaultyStore
from tests.support.faulty_ways import faulty_way
from tests.support.make_inputs import pairs, table, tar_of
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms import object_stores, storage
from transforms.errors import RowRejected, SourceChanged, StorageFailed
from transforms.inputs.fetch import MAX_IMAGE_BYTES, fetch_image
from transforms.inputs.formats import read_slices, tar_samples, webdataset
from transforms.inputs.formats.tar_places import Places
from transforms.source_files import MOST


def parquet_bytes() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"image": [b"%d" % row for row in range(50)], "n": range(50)}), out, row_group_size=8)
    return out.getvalue()


FILES = {
    "wds/00000.tar": tar_of(pairs(30)),
    "wds/00001.tar.gz": gzip.compress(tar_of(pairs(10))),
    "table/a.parquet": parquet_bytes(),
    "text/t.csv": b"path,caption\n" + b"".join(b"img/%d.jpg,c\n" % row for row in range(20)),
    "tree/a.jpg": b"A",
    "tree/a.txt": b"an a",
    "tree/d/b.jpg": b"B",
}


@pytest.fixture(scope="module")
def dataset(cloud_bucket: str) -> str:
    for name, data in FILES.items():
        storage.put_bytes(data, f"{cloud_bucket}/data/{name}")
    return f"{cloud_bucket}/data"


@pytest.mark.parametrize(
    "pattern", ["wds", "wds/{00000..00000}.tar", "wds/*.tar.gz", "table/*.parquet", "text", "tree"]
)
def test_rows_from_a_bucket_equal_those_from_disk(dataset: str, tmp_path: Path, pattern: str) -> None:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)

    def moved(rows: list[dict[str, object]]) -> str:
        return repr(rows).replace(str(tmp_path), dataset)

    for rows_per_shard in (7, 1000):
        local = read(tmp_path / pattern, rows_per_shard=rows_per_shard)
        assert moved(read(f"{dataset}/{pattern}", rows_per_shard=rows_per_shard)) == moved(local)
        assert errors(local) == [None] * len(local)


def test_references_in_a_bucket_can_be_fetched(dataset: str) -> None:
    assert fetch_image(f"{dataset}/tree/a.jpg", MAX_IMAGE_BYTES) == b"A"
    for missing in (f"{dataset}/gone.jpg", f"{dataset}/tree", f"{dataset[:5]}no-such-bucket/a.jpg"):
        with pytest.raises(RowRejected, match="image_not_found"):
            fetch_image(missing, MAX_IMAGE_BYTES)


def test_relative_references_stay_in_the_bucket(dataset: str) -> None:
    rows = read(f"{dataset}/text/t.csv")
    assert column(rows, "image_uri")[3] == f"{dataset}/text/img/3.jpg"


def test_an_object_written_again_is_noticed(dataset: str) -> None:
    uri = f"{dataset}/changing/a.csv"
    storage.put_bytes(b"path\na.jpg\n", uri)
    planned = plan(uri)
    storage.put_bytes(b"path\nb.jpg\n", uri)
    with pytest.raises(SourceChanged, match=r"a\.csv changed since the plan was made"):
        read_plan(planned)


IMAGE_BYTES, SHARDS, ROWS = 100_000, 3, 40
SLICE = IMAGE_BYTES * ROWS


def large_tar() -> bytes:
    return tar_of((f"{row:03d}.jpg", os.urandom(IMAGE_BYTES)) for row in range(SHARDS * ROWS))


def large_csv() -> bytes:
    long = "x" * (IMAGE_BYTES // 10)
    return b"path,caption\n" + b"".join(b"%d.jpg,%s\n" % (row, long.encode()) for row in range(10 * SHARDS * ROWS))


def large_parquet() -> bytes:
    images, others = ([os.urandom(IMAGE_BYTES) for _ in range(SHARDS * ROWS)] for _ in range(2))
    keys = [f"{row:03d}" for row in range(SHARDS * ROWS)]
    return table({"key": keys, "image": images, "other": others}, row_group_size=ROWS)


@pytest.fixture
def store(cloud_bucket: str) -> Iterator[FaultyStore]:
    with faulty_way(cloud_bucket) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "content", "rows", "options"),
    [
        ("a.tar", large_tar, ROWS, {}),
        ("a.csv", large_csv, 10 * ROWS, {}),
        ("a.parquet", large_parquet, ROWS, {"columns": ("key",)}),
    ],
)
def test_hardly_more_bytes_are_read_than_a_slice_has(
    name: str,
    content: Callable[[], bytes],
    rows: int,
    options: dict[str, Any],
    cloud_bucket: str,
    store: FaultyStore,
) -> None:
    uri = f"{cloud_bucket}/large/{name}"
    storage.put_bytes(content(), uri)
    planned = plan(uri, rows_per_shard=rows, **options)
    assert len(planned.pieces) == SHARDS
    read_rows = 0
    for piece in planned.pieces:
        store.sent.clear()
        for batch in read_slices([piece.slice], planned.schema, MAX_IMAGE_BYTES):
            read_rows += batch.num_rows
        assert SLICE < store.sent.total() <= 1.2 * SLICE, store.sent
    assert read_rows == rows * SHARDS


def test_a_process_that_has_not_read_the_slice_before_reads_all_from_the_last_place_that_it_knows(
    cloud_bucket: str, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes over one tar in turns, as `docs/scaling.md` says."""
    uri = f"{cloud_bucket}/shared/a.tar"
    storage.put_bytes(large_tar(), uri)
    planned = plan(uri, rows_per_shard=ROWS)
    processes, slices = [Places(), Places()], []
    for number, piece in enumerate(planned.pieces):
        for module in (tar_samples, webdataset):
            monkeypatch.setattr(module, "PLACES", processes[number % 2])
        store.sent.clear()
        assert sum(batch.num_rows for batch in read_slices([piece.slice], planned.schema, MAX_IMAGE_BYTES)) == ROWS
        slices.append((store.sent.total() - MOST, store.sent.total()))
    assert slices[0][1] <= 1.2 * SLICE
    for least, read_bytes in slices[1:]:  # the slice before and its own, and at most one request of many MiB ahead
        assert least <= 2.2 * SLICE < 1.2 * read_bytes


def test_what_s3_does_not_remove_is_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: object, paths: list[str], **options: object) -> list[str]:
        return []

    storage.put_bytes(b"x", f"{s3_bucket}/kept/a")
    with monkeypatch.context() as patch:
        patch.setattr("s3fs.S3FileSystem._bulk_delete", refused)
        with pytest.raises(StorageFailed, match="the store did not remove bucket/kept/a"):
            storage.delete_folder(f"{s3_bucket}/kept")
    storage.delete_folder(f"{s3_bucket}/kept")
    assert storage.list_files(f"{s3_bucket}/kept") == []


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_an_object_is_created_once_also_in_parts(
    cloud_bucket: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_stores, "PART", 100_000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    (tmp_path / "a").write_bytes(bytes(size))
    (tmp_path / "b").write_bytes(b"x" * size)
    uri = f"{cloud_bucket}/once/{size}"
    assert storage.put_new(tmp_path / "a", uri)
    assert not storage.put_new(tmp_path / "b", uri)
    assert not storage.put_new(b"y", uri)
    assert storage.stat(uri).size == size
    assert storage.read_bytes(uri, 4) == bytes(min(size, 4))
    assert storage.sha256(uri) == storage.sha256(str(tmp_path / "a"))


def test_s3_asks_to_try_again_where_two_put_at_once(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(object_stores, "time", SimpleNamespace(sleep=waited.append))
    with faulty_way(s3_bucket) as store:
        busy = Answer(409, "the conditional request cannot succeed due to a conflicting operation")
        store.rule = lambda request: busy if request.uploads() and store.asked < 2 else None
        assert storage.put_new(b"x", f"{s3_bucket}/busy")
        assert waited == [1, 2]
        store.rule = lambda request: busy if request.uploads() else None
        with pytest.raises(StorageFailed, match="conflicting operation"):
            storage.put_new(b"x", f"{s3_bucket}/busier")


def test_a_listing_of_several_pages_is_whole_and_in_order(cloud_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pages/{name}" for name in ("a/1", "a/2", "b&+ c/ä", "b/1", "c")]
    for name in names:
        storage.put_bytes(b"x", f"{cloud_bucket}/{name}")
    if cloud_bucket.startswith("s3"):  # some tools make such names, which look like folders
        fsspec.filesystem("s3").call_s3("put_object", Bucket="bucket", Key="pages/a/")
    monkeypatch.setattr(object_stores, "PAGE", 2)
    found = list(storage.iterate_files(f"{cloud_bucket}/pages"))
    assert [info.uri for info in found] == [f"{cloud_bucket}/{name}" for name in names]
    assert found == [storage.stat(info.uri) for info in found]
    assert [info.uri for info in storage.iterate_files(f"{cloud_bucket}/pages/*/1")] == [
        f"{cloud_bucket}/pages/{name}/1" for name in "ab"
    ]
    assert list(storage.iterate_files(f"{cloud_bucket}/none")) == []

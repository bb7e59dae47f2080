"""Inputs on Google Cloud Storage, emulated: the same rows as from a local folder."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.make_inputs import pairs, tar_of
from tests.support.read_inputs import column, errors, plan, read, read_plan
from transforms import storage
from transforms.errors import RowRejected, SourceChanged
from transforms.inputs.fetch import MAX_IMAGE_BYTES, fetch_image


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
def dataset(gcs_bucket: str) -> str:
    for name, data in FILES.items():
        storage.put_bytes(data, f"{gcs_bucket}/data/{name}")
    return f"{gcs_bucket}/data"


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
    for missing in (f"{dataset}/gone.jpg", f"{dataset}/tree", "gs://no-such-bucket/a.jpg"):
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

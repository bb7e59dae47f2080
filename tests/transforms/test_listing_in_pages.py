"""Listings of Google Cloud Storage, page by page: a bucket may have more names than memory."""

from __future__ import annotations

from typing import Any

import fsspec
import gcsfs
import pytest

from transforms import object_stores, storage
from transforms.errors import StorageFailed
from transforms.inputs.listing import find_inputs

IMAGES = [f"im/{i:02d}/{j}.jpg" for i in range(4) for j in "abc"]
NAMES = sorted([*IMAGES, "im/.x/a.jpg", "im/.x/b.jpg", "im/a.xmp", "y.jpg"])


def pretend(monkeypatch: pytest.MonkeyPatch, names: list[str], fails_at: int | None = None) -> list[dict[str, Any]]:
    """A bucket with these objects; returns the requests for pages."""
    requests: list[dict[str, Any]] = []

    def call(self: Any, method: str, path: str, bucket: str, *name: str, **asked: Any) -> dict[str, Any]:
        if name or bucket != "bucket":
            raise FileNotFoundError(bucket)
        prefix = asked.pop("prefix")
        requests.append(asked)
        if len(requests) - 1 == fails_at:
            raise OSError("the network is down")
        found = [name for name in names if name.startswith(prefix or "")]
        start = int(asked["pageToken"] or 0)
        items = [{"name": name, "size": "7", "generation": f"1{i}", "crc32c": f"c{i}"} for i, name in enumerate(found)]
        stop = start + asked["maxResults"]
        return {"items": items[start:stop], **({"nextPageToken": str(stop)} if stop < len(items) else {})}

    def info(self: Any, path: str, **options: Any) -> dict[str, Any]:
        raise FileNotFoundError(path)

    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # else credentials are looked for
    monkeypatch.setattr(gcsfs.GCSFileSystem, "call", call)
    monkeypatch.setattr(gcsfs.GCSFileSystem, "info", info)
    monkeypatch.setattr(object_stores, "PAGE", 5)
    return requests


def test_all_pages_are_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pretend(monkeypatch, NAMES)
    found = list(storage.iterate_files("gs://bucket"))
    assert [info.uri for info in found] == [f"gs://bucket/{name}" for name in NAMES]
    assert found[3] == storage.FileInfo(found[3].uri, 7, "13", "c3")
    assert len(requests) == 4
    assert {info.uri for info in storage.iterate_files("gs://bucket/im/02")} == {
        f"gs://bucket/im/02/{j}.jpg" for j in "abc"
    }
    assert list(storage.iterate_files("gs://bucket/no")) == list(storage.iterate_files("gs://other/im")) == []


@pytest.mark.parametrize(
    ("glob", "count"),
    [("im/*/*.jpg", 14), ("im/0[12]/*", 6), ("**/b.jpg", 5), ("im/0?/a.*", 4), ("*.jpg", 1), ("i*", 0)],
)
def test_globs_match_as_those_of_fsspec(glob: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, NAMES)
    assert sum(1 for _ in storage.iterate_files(f"gs://bucket/{glob}")) == count


def test_a_failing_page_fails_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, NAMES, fails_at=2)
    with pytest.raises(StorageFailed, match="cannot list gs://bucket/im: OSError: the network is down"):
        list(storage.iterate_files("gs://bucket/im"))


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]])
def test_images_of_a_bucket_are_found_in_order_and_the_rest_is_counted(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, names)
    inputs = find_inputs(["gs://bucket/im", "gs://bucket/im/0[23]/*"], None)
    assert [found.uri for found in inputs.files] == [f"gs://bucket/{name}" for name in IMAGES]
    assert [found.uri for found in inputs.beside] == ["gs://bucket/im/a.xmp"]
    assert inputs.passed.counts[".x/"] == 1

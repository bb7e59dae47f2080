"""Inputs on Google Cloud Storage, emulated."""

from __future__ import annotations

from transforms import storage
from tests.fixtures_gcs import gcs_bucket  # noqa: F401


def test_x(gcs_bucket):
    storage.put_bytes(b"abc", gcs_bucket + "/a/b.csv")
    print(storage.list_files(gcs_bucket + "/a"))
    print(storage.list_files(gcs_bucket + "/a/*"), storage.stat(gcs_bucket + "/a/b.csv"))
    print(storage.open_read(gcs_bucket + "/a/b.csv").read())
    assert not storage.put_bytes_new(b"abc", gcs_bucket + "/a/b.csv")

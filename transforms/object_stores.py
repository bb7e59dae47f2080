"""Google Cloud Storage and S3, asked with one request where gcsfs and s3fs send more to tell files from folders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import fsspec

PAGE = 1000  # objects of a listing
FIELDS = "name,size,generation,etag,updated,crc32c,md5Hash"
PART = 16 << 20  # of a large upload to S3: s3fs takes 50 MiB, ten of them at once
PARTS = 9000  # an upload has at most 10,000
PARTS_AT_ONCE = 4
NO_SUCH_RANGE = ("416", "InvalidRange")
EXISTS = ("412", "PreconditionFailed")
BUSY = ("409", "ConditionalRequestConflict")  # another writer is at it: S3 asks to try again
TRIES = 5


class ObjectStore(Protocol):
    """What is asked of a store. Objects are described as its file system describes them. Raises what that raises."""

    def look(self, path: str) -> Mapping[str, Any]:
        """One object. Raises `FileNotFoundError`."""

    def pages(self, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
        """All objects whose names begin with `prefix`, in order. Raises `FileNotFoundError` if there is no bucket."""

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of an object, or those of a range that it has."""


def object_store(fs: fsspec.AbstractFileSystem) -> ObjectStore | None:
    """The store behind a file system, if it is one of these."""
    if "gs" in fs.protocol and hasattr(fs, "call"):
        return Google(fs)
    return S3(fs) if "s3" in fs.protocol and hasattr(fs, "call_s3") else None


class Google:
    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self._fs = fs

    def look(self, path: str) -> Mapping[str, Any]:
        bucket, _, key = path.partition("/")
        return {**self._fs.call("GET", "b/{}/o/{}", bucket, key, fields=FIELDS, json_out=True), "name": path}

    def pages(self, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
        asked = {"prefix": prefix or None, "maxResults": PAGE, "fields": f"nextPageToken,items({FIELDS})"}
        token: str | None = ""
        while token is not None:
            page = self._fs.call("GET", "b/{}/o", bucket, **asked, pageToken=token or None, json_out=True)
            yield [{**item, "name": f"{bucket}/{item['name']}"} for item in page.get("items", ())]
            token = page.get("nextPageToken")

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        return _range_of(self._fs, path, start or None, end)


class S3:
    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self._fs = fs

    def look(self, path: str) -> Mapping[str, Any]:
        bucket, key, _ = self._fs.split_path(path)
        found = self._fs.call_s3("head_object", Bucket=bucket, Key=key, **self._fs.req_kw)
        return {**found, "size": found["ContentLength"], "name": path}

    def pages(self, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
        asked = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE, **self._fs.req_kw}
        while True:
            page = self._fs.call_s3("list_objects_v2", **asked)
            yield [
                {**item, "size": item["Size"], "name": f"{bucket}/{item['Key']}"} for item in page.get("Contents", ())
            ]
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        return _range_of(self._fs, path, start, end)  # without a start, s3fs asks for the size first


def create(fs: fsspec.AbstractFileSystem, source: bytes | Path, path: str) -> bool:
    """Put an object, whole, from bytes or a local file; False if it exists."""
    options: dict[str, Any] = {"mode": "create"}
    if isinstance(object_store(fs), S3):
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        options |= {"chunksize": max(PART, size // PARTS), "max_concurrency": PARTS_AT_ONCE}
    tried = 0
    while True:
        try:
            if isinstance(source, bytes):
                fs.pipe_file(path, source, **options)
            else:
                fs.put_file(str(source), path, **options)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            tried += 1
            if _code(error) in EXISTS:  # of stores that do not name the condition
                return False
            if _code(error) not in BUSY or tried == TRIES:
                raise
        time.sleep(tried)


def remove_below(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Remove all objects below a folder. Raises `FileNotFoundError` if there are none."""
    fs.rm(path, recursive=True)
    store = object_store(fs)
    if isinstance(store, S3):  # where s3fs passes over those that the store refuses to remove
        bucket, _, key = path.rstrip("/").partition("/")
        left = next((item["name"] for page in store.pages(bucket, f"{key}/") for item in page), None)
        if left is not None:
            raise PermissionError(f"the store did not remove {left}")


def _range_of(fs: fsspec.AbstractFileSystem, path: str, start: int | None, end: int | None) -> bytes:
    try:
        data: bytes = fs.cat_file(path, start=start, end=end)
    except Exception as error:
        if _code(error) in NO_SUCH_RANGE:  # as of an empty object
            return b""
        raise
    return data


def _code(error: BaseException) -> str:
    """What a store calls an error."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    told = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)
    return str(told)

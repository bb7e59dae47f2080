"""The way to an emulated bucket leads through a `FaultyStore`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import fsspec
import pytest

from tests.support.faulty_store import FaultyStore

VARIABLES = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}


async def _no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


@contextmanager
def faulty_way(bucket: str) -> Iterator[FaultyStore]:
    """Requests to `gs://...` or `s3://...` pass the store that this yields; clients try again at once."""
    scheme = bucket.partition(":")[0]
    with (
        pytest.MonkeyPatch.context() as patch,
        FaultyStore(os.environ[VARIABLES[scheme]].removeprefix("http://")) as server,
    ):
        if scheme == "gs":
            patch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=_no_wait))
        else:
            patch.setattr("botocore.retryhandler.delay_exponential", lambda *args, **options: 0.0)
        patch.setenv(VARIABLES[scheme], server.url)
        kind = fsspec.get_filesystem_class(scheme)
        kind.clear_instance_cache()
        try:
            yield server
        finally:
            kind.clear_instance_cache()

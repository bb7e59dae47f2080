"""A job on Dask as its command sees it, without a cluster: blocks of shards, and an end that does not wait for ever."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import dask_job
from pipelines.dask_job import DaskJob, blocks_of


class Cluster:
    """The client of a cluster of one worker that answers `at_work` threads, or nothing until it is closed."""

    def __init__(self, at_work: int | None) -> None:
        self._at_work = at_work
        self._closed = threading.Event()
        self.cancelled = False

    def run(self, call: Any, run: str, on_error: str) -> dict[str, int]:
        if self._at_work is None:
            self._closed.wait(30)
        return {"tcp://worker": self._at_work or 0}

    def close(self) -> None:
        self._closed.set()

    def job(self) -> DaskJob:
        return DaskJob(SimpleNamespace(client=self, state="RUNNING", cancel=self._cancel), "run")

    def _cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize(("at_work", "told"), [(1, dask_job.NOT_DROPPED), (None, dask_job.NO_ANSWER)])
def test_a_job_whose_workers_do_not_listen_is_not_called_cancelled(at_work, told, monkeypatch):
    monkeypatch.setattr(dask_job, "DROP_SECONDS", 0.3)
    monkeypatch.setattr(dask_job, "ANSWER_SECONDS", 0.3)
    cluster, began = Cluster(at_work), time.monotonic()
    job = cluster.job()
    with pytest.raises(TimeoutError, match=told):
        job.cancel()
    job.stop()
    assert time.monotonic() - began < 10
    assert not cluster.cancelled


def test_a_job_whose_workers_drop_their_shards_is_cancelled():
    cluster = Cluster(0)
    cluster.job().cancel()
    assert cluster.cancelled


def test_many_shards_share_blocks():
    assert blocks_of(range(4)) == [[0], [1], [2], [3]]
    assert blocks_of([5, 6, 9, 12, 13], most=2) == [[5, 6, 9], [12, 13]]

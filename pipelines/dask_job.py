"""A job on a cluster of Dask: one step over blocks of shards, whose summaries the launcher adds up.

Beam's runner for Dask makes a task of each partition of the input and does all steps in it. That step is the only one
here: Dask puts the same key into several groups, since processes hash it differently, and a side input, as a global
combination needs it, is computed inside one worker, with all that it comes from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.elsewhere import ANSWER_SECONDS, in_thread, run_elsewhere
from pipelines.far_progress import Watched
from pipelines.launch_result import LaunchResult
from transforms.engine import runs
from transforms.engine.beam import ProcessBlocks, finish, merged
from transforms.engine.job import Job

MOST_BLOCKS = 10_000  # tasks: a scheduler spends about a millisecond on each
LOOK_SECONDS = 0.2
DROP_SECONDS = 6.0  # for the workers, of the time that `elsewhere` gives a job to stop
NOT_DROPPED = "its workers do not drop their shards"
NO_ANSWER = "not every worker answers"


def run(job: Job, pending: Sequence[int], beam_args: list[str], *, scratch: str, watched: Watched) -> LaunchResult:
    """Do the `pending` shards of a job; raises as `run_elsewhere` does."""
    name = uuid.uuid4().hex
    jobs: list[DaskJob] = []

    def build(pipeline: beam.Pipeline) -> None:
        blocks = pipeline | "Plan" >> beam.Create(blocks_of(pending), reshuffle=False)
        _ = blocks | ProcessBlocks(job, name)

    def follow(result: Any) -> DaskJob:
        jobs.append(DaskJob(result, name))
        return jobs[0]

    ended = run_elsewhere(build, one_block_a_task(beam_args), scratch=scratch, watched=watched, follow=follow)
    if jobs and jobs[0].summaries is not None:
        finish(merged(jobs[0].summaries), job.output, job.max_error_rate, job.work.main)
    return ended


def blocks_of(pending: Sequence[int], most: int = MOST_BLOCKS) -> list[list[int]]:
    """Shard numbers in blocks, one shard each unless that would be more than `most`."""
    size = max(1, -(-len(pending) // most))
    return [list(pending[start : start + size]) for start in range(0, len(pending), size)]


def one_block_a_task(beam_args: list[str]) -> list[str]:
    """The flags of Beam with a partition for each block, unless they say otherwise: by default 128 would share one."""
    from apache_beam.runners.dask.dask_runner import DaskOptions

    asked = PipelineOptions(beam_args).view_as(DaskOptions)
    return beam_args if asked.npartitions or asked.partition_size else [*beam_args, "--dask_partition_size=1"]


class DaskJob:
    """A job as `elsewhere` follows one, around what Beam's runner returns."""

    def __init__(self, result: Any, run: str) -> None:
        self.summaries: list[dict[str, Any]] | None = None  # of blocks, once the job has ended well
        self._result = result
        self._client = result.client
        self._run = run

    @property
    def state(self) -> str:
        return str(self._result.state)

    def wait_until_finish(self) -> str:
        state = self._result.wait_until_finish()
        self.summaries = [summary for part in self._client.gather(list(self._result.futures)) for summary in part]
        return str(state)

    def cancel(self) -> None:
        """Have the workers drop what they are at, which Dask alone does not, and then the rest of the job.

        Raises `TimeoutError` if they do not in time: they begin no other shard, but they have not stopped.
        """
        deadline = time.monotonic() + DROP_SECONDS
        self._on_workers(runs.stop)
        while any(self._on_workers(runs.threads_at_work)):
            if time.monotonic() > deadline:
                raise TimeoutError(NOT_DROPPED)
            time.sleep(LOOK_SECONDS)
        self._result.cancel()

    def stop(self) -> None:
        """Let go of the cluster; one that Dask made for this job ends."""
        with suppress(Exception):
            if not any(self._on_workers(runs.threads_at_work)):
                self._on_workers(runs.forget)
        self._client.close()

    def _on_workers(self, call: Callable[[str], Any]) -> list[Any]:
        """What a function of the run returns in each worker; those that are lost are left out.

        Raises `TimeoutError` if one that is not lost does not answer.
        """
        asking = in_thread(lambda: self._client.run(call, self._run, on_error="ignore"))
        try:
            return list(asking.result(ANSWER_SECONDS).values())
        except FutureTimeoutError as error:
            raise TimeoutError(NO_ANSWER) from error

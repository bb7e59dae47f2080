"""Runs a pipeline on this machine with Beam's in-process runner, or elsewhere with the runner that `--runner` names.

Beam's default runner would first try to download another one, so local runs name theirs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.elsewhere import run_elsewhere
from pipelines.engines import is_local
from pipelines.far_progress import Watched
from pipelines.launch_result import LaunchResult
from pipelines.lean_imports import without_optional
from pipelines.local_worker import worker_command, worker_pids
from pipelines.local_workers import given
from pipelines.stopping import SIGNALS, StopSignals, handled
from transforms.engine.monitor import request_last, shards_in_flight
from transforms.errors import WorkerLost

GRACE_SECONDS = 10.0  # between a request to stop and the end of the workers that did not
TICK_SECONDS = 0.1
WORKER_THREADS = ("run_worker", "beam_control_read", "read_grpc_client_inputs")
TELL_OF_LOST_WORKERS = ("worker.data_plane", "portability.fn_api_runner.worker_handlers")
CRASH_TICKS = 20  # a worker that is gone without having said so for this long has crashed


def run_pipeline(
    build: Callable[[beam.Pipeline], None],
    beam_args: list[str],
    *,
    workers: int,
    scratch: str,
    grace: float = GRACE_SECONDS,
    watched: Watched | None = None,
) -> LaunchResult:
    """Runs what `build` puts into a pipeline and waits for it, in the main thread.

    `workers` counts for local runs. `scratch` is the run's scratch folder; while a local run goes on, signals
    become a request to stop in it (`transforms.engine.monitor`), after `grace` seconds the workers are ended. A job
    elsewhere is cancelled by them, and shown as `watched`; one on Dataflow is `pipelines.dataflow_job`'s.
    Raises `UsageError` for a runner that cannot be used, `WorkerLost` if a worker process crashed, once
    the others have finished the shards that they were at, and what the pipeline raised.
    """
    if is_local(beam_args):
        return _run_here(build, beam_args, workers, scratch, grace)
    return run_elsewhere(build, beam_args, scratch=scratch, watched=watched)


def _run_here(
    build: Callable[[beam.Pipeline], None], beam_args: list[str], workers: int, scratch: str, grace: float
) -> LaunchResult:
    mode = given(beam_args, "direct_running_mode") or ("multi_processing" if workers > 1 else "in_memory")
    options = PipelineOptions(beam_args)
    options.view_as(StandardOptions).runner = "FnApiRunner"
    options.view_as(DirectOptions).direct_num_workers = workers
    with without_optional():  # Beam asks at each step whether it is in a notebook
        pipeline = beam.Pipeline(runner=_local_runner(options, mode, scratch), options=options)
        build(pipeline)
    # In another thread, so that this one can take signals. An abandoned thread ends with the process.
    executor = ThreadPoolExecutor(1, thread_name_prefix="pipeline")
    stop = StopSignals(scratch, grace)
    with handled(dict.fromkeys(SIGNALS, stop.take)):
        speak_again = _hush_worker_threads()
        run = executor.submit(lambda: pipeline.run().wait_until_finish())
        executor.shutdown(wait=False)
        crashed = _wait_for(run, scratch, stop)
        if crashed and not stop.overdue():
            _let_finish(scratch, stop)
        if run.done() and not crashed:
            speak_again()
        else:
            _end_workers(scratch)
    if stop.number is not None:
        return LaunchResult("STOPPED", stop.number)
    if crashed:
        raise WorkerLost(
            f"worker process {crashed[0]} ended abruptly; if memory is short, the system ends the largest process: "
            "try fewer --workers or a smaller --batch_size"
        )
    return LaunchResult(run.result())


def _hush_worker_threads() -> Callable[[], None]:
    """Silences the tracebacks of Beam's threads that talk to a worker process which ends; the launcher reports it.

    Returns the function that undoes this. It stays silent if workers were killed: those threads notice late.
    """
    before = threading.excepthook
    loggers = [logging.getLogger(f"apache_beam.runners.{name}") for name in TELL_OF_LOST_WORKERS]

    def report(args: Any) -> None:
        if not (args.thread and args.thread.name.startswith(WORKER_THREADS)):
            before(args)

    def undo() -> None:
        threading.excepthook = before
        for logger in loggers:
            logger.disabled = False

    threading.excepthook = report
    for logger in loggers:
        logger.disabled = True
    return undo


def _local_runner(options: PipelineOptions, mode: str, scratch: str) -> FnApiRunner:
    direct = options.view_as(DirectOptions)
    if mode != "multi_processing":
        direct.direct_running_mode = mode
        return FnApiRunner()
    # The runner replaces the worker command where the mode is set, and does not hand options on to workers itself.
    direct.direct_running_mode = None
    encoded = JobServiceHandle.encode_pipeline_options(
        options.get_all_options(drop_default=True, retain_unknown_options=True)
    )
    return FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(worker_command(scratch)),
        provision_info=ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)),
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(run: Future[str], scratch: str, stop: StopSignals) -> list[int]:
    """Waits until the pipeline has ended, or its workers had their time to stop; gives the workers that crashed.

    A pipeline that lost a worker fails at once, or waits for ever. One that has failed is given the time to see why.
    """
    crashed_for = failed_for = 0
    while not stop.overdue():
        wait([run], timeout=TICK_SECONDS)
        left = worker_pids(scratch)
        crashed = [pid for pid in left if not _is_alive(pid)]
        crashed_for = crashed_for + 1 if crashed else 0
        if run.done():
            if run.exception() is None or not left or failed_for >= CRASH_TICKS:
                break
            failed_for += 1
            time.sleep(TICK_SECONDS)
        if crashed_for >= CRASH_TICKS:
            return crashed
    return []


def _let_finish(scratch: str, stop: StopSignals) -> None:
    """Waits until the workers that are left have finished the shards that they are at."""
    request_last(scratch)
    quiet_for = 0
    while quiet_for < CRASH_TICKS and not stop.overdue():
        left = [pid for pid in worker_pids(scratch) if _is_alive(pid)]
        quiet_for = 0 if shards_in_flight(scratch, left) else quiet_for + 1
        time.sleep(TICK_SECONDS)


def _end_workers(scratch: str) -> None:
    """Kills the worker processes and waits until they are gone; those that have not started see it themselves."""
    deadline = time.monotonic() + 5
    pids = worker_pids(scratch)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)

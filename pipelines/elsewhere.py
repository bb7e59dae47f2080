"""Runs a pipeline on an engine that is not ours to control: hands it over, follows it, stops it, says how it ended.

Beam's own end of such a job is a traceback, or the same twice; what an engine says is told here in one line. A signal
cancels the job: "stopped" is said only of a job that has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.runner import PipelineState, create_runner
from apache_beam.utils.subprocess_server import SubprocessServer

from pipelines.beam_flags import runner_class
from pipelines.cancelling import how_to_cancel
from pipelines.engine_errors import is_gone, reason_of
from pipelines.engines import DASK, bare
from pipelines.far_progress import Watched, counters, far_progress
from pipelines.launch_result import SUBMITTED, LaunchResult
from pipelines.process import hushed
from pipelines.stopping import SIGNALS, LeftRunning, StopSignals, handled
from pipelines.terminal import say
from transforms.errors import RunFailed, UsageError

GRACE_SECONDS = 10.0  # between a request to cancel the job and the end of our patience
ANSWER_SECONDS = 3.0  # for a question after a job's state
TICK_SECONDS = 0.1
FOR_EVER = 10_000_000  # seconds: Beam ends its watch over a job that takes longer than `--job_server_timeout`
STOPPING = "Stopping: the job is being cancelled; its workers may finish their shards. Once more to leave at once."


def run_elsewhere(
    build: Callable[[beam.Pipeline], None],
    beam_args: list[str],
    *,
    scratch: str,
    watched: Watched | None = None,
    follow: Callable[[Any], Any] | None = None,
) -> LaunchResult:
    """Runs what `build` puts into a pipeline with the runner that `beam_args` name, and waits for its end.

    `follow` makes of the runner's result one that can be followed, and that lets go of the engine by `stop`.
    Raises `UsageError` for a runner that there is not, `RunFailed` if it takes no job, and `LeftRunning` if a signal
    came and the job could not be stopped. A job that fails is a result with its reason.
    """
    options = PipelineOptions(beam_args)
    name = str(options.view_as(StandardOptions).runner)
    portable = options.view_as(PortableOptions)
    service = f"the job service {portable.job_endpoint}" if portable.job_endpoint else f"the job service of {name}"
    executable = portable.output_executable_path
    portable.job_server_timeout = FOR_EVER  # whether it answers has been seen before
    cancel = partial(how_to_cancel, beam_args)
    with hushed():
        runner = runner_of(name)
        servers = _servers_of(runner)
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"--runner {name}: {error}") from error
        build(pipeline)
        stop = StopSignals(scratch, GRACE_SECONDS, STOPPING)
        try:
            try:
                submitting = partial(_while_submitting, stop, cancel)
                with handled(dict.fromkeys(SIGNALS, submitting)):  # taken or not, a job is known
                    result = pipeline.run()
            except (grpc.RpcError, grpc.FutureTimeoutError, RuntimeError, ValueError, OSError) as error:
                if stop.number is not None:
                    return LaunchResult("STOPPED", stop.number)
                if is_gone(error):  # it may have taken the job, and its answer is lost
                    return LaunchResult(
                        PipelineState.FAILED, reason=f"{reason_of(error, service)}; {cancel(None, answers=False)}"
                    )
                raise RunFailed(f"{name} took no job: {reason_of(error, service)}") from error
            if follow is not None:
                result = follow(result)
                servers.append(result)
            shown = watched and replace(watched, look=_where_to_look(name, service))
            ended = _follow(result, stop, shown, service, cancel)
        finally:
            _end_servers(servers, at_once=stop.insisted)
    if executable and ended.state == PipelineState.DONE:
        say(f"The job was written to {executable}")
        return LaunchResult(SUBMITTED)
    return ended


def runner_of(name: str) -> Any:
    """The runner of Beam of that name, or of a class with its module. Raises `UsageError` if there is none."""
    try:
        return create_runner(runner_class(name))
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner {name}: {error}") from error


def _while_submitting(stop: StopSignals, cancel: Callable[..., str], number: int, frame: FrameType | None) -> None:
    """Handles a signal that comes before it is known whether the engine has taken the job."""
    stop.take(number, frame)
    if stop.insisted:
        how = cancel(None, answers=True, at_once=True)
        raise LeftRunning(number, f"The job was being handed over. It may go on: {how}")


def _follow(
    result: Any, stop: StopSignals, watched: Watched | None, service: str, cancel: Callable[..., str]
) -> LaunchResult:
    """Waits for the end of a job. In other threads, which end with the process if they are given up on."""
    waiting = in_thread(result.wait_until_finish)
    cancelling: Future[Any] | None = None
    with handled(dict.fromkeys(SIGNALS, stop.take)), far_progress(watched, partial(counters, result)):
        while not waiting.done() and not stop.overdue():
            wait([waiting], timeout=TICK_SECONDS)
            if stop.number is not None and cancelling is None:
                cancelling = in_thread(result.cancel)
                wait([waiting], timeout=TICK_SECONDS)
            if cancelling is not None and cancelling.done() and cancelling.exception() is not None:
                break  # it will not be stopped
    error = waiting.exception() if waiting.done() else None
    gone = is_gone(error)
    state = None if gone else _state(result)
    job = getattr(result, "_job_id", None)
    if stop.number is not None:
        if state is None or not PipelineState.is_terminal(state):
            why = _why_left(service, cancelling, gone)
            how = cancel(job, answers=state is not None, at_once=stop.insisted)
            name = f"The job {job}" if job else "The job"
            raise LeftRunning(stop.number, f"{name} was not stopped{why}. It may go on: {how}")
        return LaunchResult("STOPPED", stop.number)
    if error is None:
        ended = waiting.result() or state
        reason = "" if ended == PipelineState.DONE else f"the job ended {ended}"
        return LaunchResult(str(ended), reason=reason)
    if state == PipelineState.CANCELLED:
        return LaunchResult(PipelineState.CANCELLED, reason="it was cancelled")
    how = f"; {cancel(job, answers=False)}" if gone else ""
    return LaunchResult(PipelineState.FAILED, reason=reason_of(error, service) + how)


def _where_to_look(name: str, service: str) -> str:
    """Where an engine tells why it starts no workers."""
    advice = {
        "flinkrunner": "Flink's web interface (too few free slots for --parallelism?) and ",
        "sparkrunner": "Spark's web interface (no master, too little memory?) and ",
    }
    if bare(name) == DASK:
        return "Dask's dashboard (has a worker joined the scheduler?) and the logs of its workers"
    return f"{advice.get(bare(name), '')}the log of {service}"


def _why_left(service: str, cancelling: Future[Any] | None, gone: bool) -> str:
    """Why a signal has not stopped the job."""
    if gone:
        return f", since {service} went away"
    refused = cancelling.exception() if cancelling is not None and cancelling.done() else None
    return " in time" if refused is None else f": {reason_of(refused, service)}"


def _state(result: Any) -> str | None:
    """The state of a job now; None if there is no answer."""
    asking = in_thread(lambda: result.state)
    with suppress(Exception):
        return str(asking.result(ANSWER_SECONDS))
    return None


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """What `work` will return, done in a thread of its own that ends with the process if it is given up on."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future


def _servers_of(runner: Any) -> list[Any]:
    """The job servers that a runner will start for itself; filled while it does."""
    servers: list[Any] = []
    begin = getattr(runner, "default_job_server", None)
    if begin is not None:

        def kept(options: PipelineOptions) -> Any:
            server = begin(options)
            servers.append(server)
            return server

        runner.default_job_server = kept
    return servers


def _end_servers(servers: list[Any], *, at_once: bool) -> None:
    """Ends the job servers that Beam started for us: it leaves that to the end of the interpreter, which may not come.

    They have some seconds for it, unless it is to be `at_once`.
    """
    if at_once:
        for entry in list(SubprocessServer._cache._cache.values()):
            with suppress(OSError):
                entry.obj[0].kill()
    for server in servers:
        with suppress(Exception):
            server.stop()

"""Runs a pipeline on Dataflow: hands it over, says where it is seen, follows it, and says in one line how it ended.

The job goes on by itself: a signal ends this command, not the job.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, TestOptions
from apache_beam.runners.runner import PipelineState, create_runner

from pipelines.engine_errors import one_line
from pipelines.far_progress import Watched
from pipelines.launch_result import SUBMITTED, LaunchResult
from pipelines.process import hushed
from pipelines.sample import FOR_A_WORKER, Reckoning, Sample
from pipelines.sample_text import line
from pipelines.stopping import SIGNALS, LeftRunning, Terminated
from pipelines.terminal import say
from transforms.engine.beam import NAMESPACE
from transforms.engine.monitor import COUNTERS
from transforms.errors import RunFailed, UsageError

STATE_SECONDS = 5.0  # between two looks at the job's state
PROGRESS_SECONDS = 30.0  # between two lines of progress
REASON_SECONDS = 40.0  # a failed job's reason may come that much later than its state
ENDS = {
    "JOB_STATE_DONE": PipelineState.DONE,
    "JOB_STATE_FAILED": PipelineState.FAILED,
    "JOB_STATE_CANCELLED": PipelineState.CANCELLED,
    "JOB_STATE_UPDATED": PipelineState.UPDATED,
    "JOB_STATE_DRAINED": PipelineState.DRAINED,
}
UNTOLD = ("work item was attempted", "Workflow failed")  # these only say that there were other messages


def run(build: Callable[[beam.Pipeline], None], beam_args: list[str], watched: Watched, *, wait: bool) -> LaunchResult:
    """Run what `build` puts into a pipeline on Dataflow, and unless told not to `wait`, follow it to its end.

    Raises `UsageError` if a job of this name is there already, `RunFailed` if the service takes no job, and
    `LeftRunning` at a signal. A job that fails is a result with its reason.
    """
    options = PipelineOptions(beam_args)
    cloud = options.view_as(GoogleCloudOptions)
    with hushed():
        try:
            runner = create_runner("DataflowRunner")
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise UsageError(f"--runner DataflowRunner: {one_line(str(error))}") from error
        build(pipeline)
        try:
            result = _submitted(pipeline)
        except KeyboardInterrupt as signal:
            if cloud.template_location or options.view_as(TestOptions).dry_run:
                raise
            told = f"It may go on: {_how_to_find(cloud)}"
            raise _left(signal, f"The job {cloud.job_name} was being handed over. {told}") from None
        if cloud.template_location:
            say(f"The template was written to {cloud.template_location}; no job was started")
            return LaunchResult(SUBMITTED)
        if options.view_as(TestOptions).dry_run:
            say("The job was described and not started: --dry_run is among the flags of Beam")
            return LaunchResult(SUBMITTED)
        job = DataflowJob(runner.dataflow_client, result.job_id(), cloud)
        say(f"Job {job.id}: {job.link}", file=sys.stderr if wait else None)
        if not wait:
            say(f"It goes on by itself. The same command says how it ended, this ends it:\n  {job.cancel_command}")
            return LaunchResult(SUBMITTED)
        try:
            return job.follow(watched)
        except KeyboardInterrupt as signal:
            told = f"Job {job.id} goes on without this command: {job.link}\n`{job.cancel_command}` ends it"
            raise _left(signal, told) from None


def _left(signal: KeyboardInterrupt, told: str) -> LeftRunning:
    return LeftRunning(SIGNALS[isinstance(signal, Terminated)], told)


def _how_to_find(cloud: GoogleCloudOptions) -> str:
    """What to type about a job whose id is not known."""
    where = f"--region {cloud.region} --project {cloud.project}"
    return (
        f"`gcloud dataflow jobs list --status active --filter name={cloud.job_name} {where}` says its "
        f"id, `gcloud dataflow jobs cancel ID {where}` ends it"
    )


def _submitted(pipeline: beam.Pipeline) -> Any:
    """Beam's result for a pipeline that has been handed over."""
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError

    try:
        return pipeline.run()
    except DataflowJobAlreadyExistsError as error:
        raise UsageError(
            f"{one_line(str(error)).partition(' If you want')[0]} It does this job: wait for its end, or cancel it: "
            f"{_how_to_find(pipeline.options.view_as(GoogleCloudOptions))}"
        ) from error
    except Exception as error:  # of Google's packages, of several kinds
        raise RunFailed(f"Dataflow took no job: {one_line(str(error) or type(error).__name__)}") from error


class DataflowJob:
    """A job of the service. `client` is Beam's, which tries again by itself."""

    def __init__(self, client: Any, id: str, cloud: GoogleCloudOptions) -> None:
        self.id = id
        self._client = client
        where = f"{cloud.region}/{id}?project={cloud.project}"
        self.link = f"https://console.cloud.google.com/dataflow/jobs/{where}"
        self.cancel_command = f"gcloud dataflow jobs cancel {id} --region {cloud.region} --project {cloud.project}"

    def follow(self, watched: Watched) -> LaunchResult:
        """Tell the job's state, its warnings and its progress until it ends."""
        began = time.monotonic()
        told, last, seen = began - PROGRESS_SECONDS, "", set[str]()
        reckoning = Reckoning(watched.expected, began, FOR_A_WORKER)
        while True:
            state = self._state() or last
            if state != last:
                say(f"{_clock(began)} {_words(state)}", file=sys.stderr, flush=True)
                last = state
            if state in ENDS:
                self._sample(reckoning, watched, last=True)
                break
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                for message in self._new_warnings(seen):
                    say(f"{_clock(began)} Dataflow: {message}", file=sys.stderr)
                sample = self._sample(reckoning, watched)
                say(f"{_clock(began)} {line(sample)}", file=sys.stderr, flush=True)
            time.sleep(STATE_SECONDS)
        if ENDS[state] == PipelineState.DONE:
            return LaunchResult(PipelineState.DONE)
        reason = self._reason() if ENDS[state] == PipelineState.FAILED else self.link
        return LaunchResult(ENDS[state], reason=f"job {self.id} {_words(state)}: {reason}")

    def _sample(self, reckoning: Reckoning, watched: Watched, *, last: bool = False) -> Sample:
        sample = reckoning.sample(time.monotonic(), self._counts())
        for sink in watched.sinks:
            sink.take(sample, last=last)
        return sample

    def _state(self) -> str | None:
        """Its name in the service; None if there is no answer now."""
        try:
            return str(self._client.get_job(self.id).current_state.name)
        except Exception as error:  # of Google's packages, of several kinds; the job goes on
            say(f"warning: Dataflow does not say how job {self.id} is: {one_line(str(error))}", file=sys.stderr)
            return None

    def _counts(self) -> Mapping[str, float]:
        """vqbeam's counters, added up over the steps; those of work in flight if the service has them."""
        found: dict[tuple[str, str], float] = {}
        try:
            metrics = self._client.get_job_metrics(self.id).metrics
        except Exception:  # as above; the state tells of it
            metrics = []
        for metric in metrics:
            context = dict(metric.name.context)
            if context.get("namespace") == NAMESPACE and isinstance(metric.scalar, int | float):
                key = (metric.name.name, context.get("step", ""))
                found[key] = max(found.get(key, 0), metric.scalar)
        counts = dict.fromkeys(COUNTERS, 0.0)
        for (name, _), value in found.items():
            counts[name] = counts.get(name, 0) + value
        counts["shards_done"] += counts.get("shards_adopted", 0)
        at_work = min(1.0, counts["rows_read"])
        counts |= {"shards_in_flight": at_work, "models_loaded": at_work}
        done = sum(counts[name] for name in ("rows_written", "rows_rejected", "rows_filtered"))
        return counts | dict.fromkeys(("rows_done", "places_done", "rows_of_done_shards"), done)

    def _messages(self, importance: str) -> Iterator[str]:
        page = None
        while True:
            try:
                found, page = self._client.list_messages(self.id, page_token=page, minimum_importance=importance)
            except Exception:  # as above
                return
            yield from (str(message.message_text) for message in found)
            if not page:
                return

    def _new_warnings(self, seen: set[str]) -> list[str]:
        """Warnings and errors that have not been told, such as a quota that is used up."""
        lines = [one_line(text) for text in self._messages("JOB_MESSAGE_WARNING")]
        new = list(dict.fromkeys(line for line in lines if line not in seen))
        seen.update(new)
        return new[:3]

    def _reason(self) -> str:
        """What the service says of a failure, best first: what a worker raised, then what else went wrong."""
        deadline = time.monotonic() + REASON_SECONDS
        while True:
            messages = list(self._messages("JOB_MESSAGE_ERROR"))
            telling = [text for text in messages if not any(words in text for words in UNTOLD)]
            raised = [text for text in messages if "Traceback" in text]
            best = raised or telling or (messages if time.monotonic() > deadline else [])
            if best:
                return f"{one_line(best[-1])} ({self.link})"
            if time.monotonic() > deadline:
                return f"see {self.link}"
            time.sleep(STATE_SECONDS)


def _words(state: str) -> str:
    """ "cancelled" of "JOB_STATE_CANCELLED"."""
    return state.removeprefix("JOB_STATE_").replace("_", " ").lower()


def _clock(began: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"

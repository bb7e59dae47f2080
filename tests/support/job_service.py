"""A job service of Beam that does no work: it answers as a script says, fails, goes away, or refuses to cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc

State = api.JobState
ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass
class Script:
    """What becomes of a job: it ends `ends`, at once, or once it is cancelled if that is None. `error` is the message
    of a failure. `begun` is called when it runs. A `deaf` service takes the request to cancel and does nothing; one
    that `refuses` answers with an error. `options` are those that it knows besides Beam's. With `early`, `begun` is
    called before the client hears that there is a job."""

    ends: int | None = State.DONE
    error: str = ""
    begun: Callable[[], object] = lambda: None
    deaf: bool = False
    refuses: bool = False
    options: tuple[str, ...] = ()
    early: bool = False


@dataclass
class JobService(beam_job_api_pb2_grpc.JobServiceServicer):
    """The service; `prepared` and `cancelled` are what was asked of it."""

    script: Script
    prepared: list[Any] = field(default_factory=list)
    cancelled: int = 0
    _states: list[int] = field(default_factory=lambda: [State.STOPPED])
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def DescribePipelineOptions(self, request: Any, context: Any) -> Any:
        options = [api.PipelineOptionDescriptor(name=name) for name in self.script.options]
        return api.DescribePipelineOptionsResponse(options=options)

    def Prepare(self, request: Any, context: Any) -> Any:
        self.prepared.append(request)
        return api.PrepareJobResponse(preparation_id="job-1")

    def Run(self, request: Any, context: Any) -> Any:
        self._move_to(State.RUNNING)
        beginning = threading.Thread(target=self._begin, daemon=True)
        beginning.start()
        if self.script.early:
            beginning.join()
        return api.RunJobResponse(job_id="job-1")

    def _begin(self) -> None:
        self.script.begun()
        if self.script.ends is not None:
            self._move_to(self.script.ends)

    def GetJobs(self, request: Any, context: Any) -> Any:
        found = [api.JobInfo(job_id="job-1", state=self._states[-1])] if self.prepared else []
        return api.GetJobsResponse(job_info=found)

    def GetState(self, request: Any, context: Any) -> Any:
        return api.JobStateEvent(state=self._states[-1])

    def GetStateStream(self, request: Any, context: Any) -> Iterator[Any]:
        for state in self._every_state():
            yield api.JobStateEvent(state=state)

    def GetMessageStream(self, request: Any, context: Any) -> Iterator[Any]:
        for state in self._every_state():
            if state == State.FAILED and self.script.error:
                told = {"importance": api.JobMessage.JOB_MESSAGE_ERROR, "message_text": self.script.error}
                yield api.JobMessagesResponse(message_response=api.JobMessage(**told))
            yield api.JobMessagesResponse(state_response=api.JobStateEvent(state=state))

    def GetJobMetrics(self, request: Any, context: Any) -> Any:
        return api.GetJobMetricsResponse()

    def Cancel(self, request: Any, context: Any) -> Any:
        self.cancelled += 1
        if self.script.refuses:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this engine cancels nothing")
        if not self.script.deaf:
            self._move_to(State.CANCELLED)
        return api.CancelJobResponse(state=self._states[-1])

    def _move_to(self, state: int) -> None:
        with self._changed:
            self._states.append(state)
            self._changed.notify_all()

    def _every_state(self) -> Iterator[int]:
        told = 0
        while not told or self._states[told - 1] not in ENDED:
            with self._changed:
                while told >= len(self._states):
                    self._changed.wait()
                state = self._states[told]
            told += 1
            yield state


@dataclass
class Running:
    """A service that listens at `endpoint`."""

    endpoint: str
    service: JobService
    _server: Any

    def go_away(self) -> None:
        """As if it was killed."""
        self._server.stop(0).wait()


@contextmanager
def job_service(script: Script) -> Iterator[Running]:
    """A job service for as long as the context is open."""
    server = grpc.server(ThreadPoolExecutor(8))
    service = JobService(script)
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    running = Running(f"127.0.0.1:{port}", service, server)
    try:
        yield running
    finally:
        with service._changed:
            service._states.append(State.FAILED)  # ends what still listens
            service._changed.notify_all()
        running.go_away()

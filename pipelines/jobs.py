"""`vqbeam jobs HOST:PORT`: lists or cancels the jobs of a job service of Beam, which has no such command of its own."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from pipelines.command import Command
from pipelines.terminal import say

ANSWER_SECONDS = 10.0  # for each question
END_SECONDS = 10.0  # for a job that is cancelled
TICK_SECONDS = 0.2


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="HOST:PORT", help="the job service")
    parser.add_argument("--cancel", metavar="JOB", help="cancel this job, by its id in the list, and wait for its end")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Returns the exit code: 1 if the job goes on. Raises `UsageError` if nothing answers."""
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2_grpc

    from pipelines.engine_errors import reason_of
    from pipelines.engines import check_answers

    check_answers(args.service, "the job service")
    with grpc.insecure_channel(args.service) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        try:
            return _cancel(stub, args.cancel) if args.cancel else _list(stub)
        except grpc.RpcError as error:
            say(f"vqbeam jobs: {reason_of(error, f'the job service {args.service}')}", file=sys.stderr)
            return 1


def _list(stub: Any) -> int:
    from apache_beam.portability.api import beam_job_api_pb2 as api

    for job in stub.GetJobs(api.GetJobsRequest(), timeout=ANSWER_SECONDS).job_info:
        say(f"{job.job_id} {_name(job.state)}")
    return 0


def _cancel(stub: Any, job: str) -> int:
    from apache_beam.portability.api import beam_job_api_pb2 as api
    from apache_beam.runners.runner import PipelineState

    state = _name(stub.Cancel(api.CancelJobRequest(job_id=job), timeout=ANSWER_SECONDS).state)
    deadline = time.monotonic() + END_SECONDS
    while not PipelineState.is_terminal(state) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
        state = _name(stub.GetState(api.GetJobStateRequest(job_id=job), timeout=ANSWER_SECONDS).state)
    say(f"{job} {state}")
    return 0 if PipelineState.is_terminal(state) else 1


def _name(state: int) -> str:
    from apache_beam.portability.api import beam_job_api_pb2 as api

    return str(api.JobState.Enum.Name(state))


COMMAND = Command(
    "List the jobs of a job service of Beam, or cancel one of them.",
    add_flags,
    run,
    examples=("vqbeam jobs jobs-host:8099", "vqbeam jobs jobs-host:8099 --cancel job-1"),
)

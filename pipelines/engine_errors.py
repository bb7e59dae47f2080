"""One line for people from what an engine says of a job that failed: pages of Java's and Python's traces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import grpc

from transforms.errors import shortened

TRACEBACK = "Traceback (most recent call last):"
RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Failed|Failure)\b")  # begins an exception's text
OURS = ("transforms", "pipelines", "models", "vqbeam")
NO_VQBEAM = "the workers have no vqbeam: it must be installed where they run, in the version of this command"
OTHER_VQBEAM = "the workers have another version of vqbeam: install there the version of this command"
WORKER_GONE = re.compile(r"RuntimeError: (Channel closed prematurely|Worker subprocess exited)")  # Beam's own runner
LOST_SCHEDULER = "the scheduler of Dask went away"
LOST_WORKER = "a worker process ended abruptly; if memory is short, the system ends the largest process"


def one_line(text: str) -> str:
    """The reason in a message of many lines: what the last Python trace in it raised, else its first line."""
    missing = re.search(r"No module named '(\w+)[\w.]*'", text)
    if missing and missing[1] in OURS:
        return NO_VQBEAM if missing[0].count(".") == 0 else OTHER_VQBEAM
    if re.search(rf"AttributeError: .*({'|'.join(OURS)})\.\w+", text):
        return OTHER_VQBEAM
    if WORKER_GONE.search(text):
        return LOST_WORKER
    if "cancelled for reason: scheduler-connection-lost" in text:
        return LOST_SCHEDULER
    text = re.sub(r"^Pipeline \S+ failed in state \w+: ", "", text)
    before, found, trace = text.rpartition(TRACEBACK)
    lines = _raised(trace.splitlines()) if found else (line.strip() for line in text.splitlines())
    line = next(filter(None, lines), before.strip().partition("\n")[0] or "it gave no reason")
    return shortened(line.removesuffix("."))


def _raised(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a Python trace that are no frame and no code."""
    for line in lines:
        line = re.sub(r" \[while running .*", "", line)
        if RAISED.match(line):
            yield line.strip()


def reason_of(error: BaseException, service: str) -> str:
    """Why the job failed that ended in `error`; `service` is what is said of a job service that is gone."""
    if isinstance(error, grpc.FutureTimeoutError):
        return f"{service} does not answer"
    if isinstance(error, grpc.RpcError):
        code = getattr(error, "code", lambda: None)()
        details = getattr(error, "details", lambda: "")() or ""
        if is_gone(error):
            return f"{service} went away: its job may go on without it"
        return f"{service} answers {getattr(code, 'name', code)}: {one_line(details)}"
    return one_line(str(error) or type(error).__name__)


def is_gone(error: BaseException | None) -> bool:
    """Whether a job service does not answer any more."""
    code = error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
    return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)

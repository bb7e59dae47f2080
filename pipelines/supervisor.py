"""The process above a command that works: starts it again if the system or a crash ends it.

A row that a library cannot bear, or a lack of memory, ends the whole process, and nothing in it can say so. So a
command that launches a pipeline works in a fork, made before anything slow is imported. If that ends by such a signal,
or because a worker process of its own did, it is begun again: finished shards are kept, and a shard that has ended its
worker twice is done in a process of its own (`transforms.engine.attempts`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from pipelines.terminal import say

# What a crash or the system sends; others are somebody's wish that the command ends.
CRASHES = tuple(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGSYS")
    if hasattr(signal, name)
)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # from a terminal they come twice: `pipelines.stopping`
BEGIN_AGAIN = 75  # the exit code of a command that lost a worker process
TRIES = 10  # ends in a row without a shard more being done
LOOK_SECONDS = 0.5
WATCH = "parent watch"  # the name of the thread that looks whether the parent lives
OVERWRITE = "--overwrite"  # what the first try has done must not be undone by the next

_pipe: int | None = None  # to the supervisor; None in a process that has none


def tell_pending(shards: int) -> None:
    """Tell the supervisor, if there is one, how many shards are pending now that work begins."""
    if _pipe is not None:
        with suppress(OSError):
            os.write(_pipe, f"{shards}\n".encode())


def is_supervised() -> bool:
    """Whether this process is that of one command and nothing else, below a supervisor."""
    return _pipe is not None


def code_of_lost_worker() -> int:
    """The exit code of a process that lost a worker."""
    return 1 if _pipe is None else BEGIN_AGAIN


def supervised(argv: list[str], work: Callable[[list[str]], int]) -> int:
    """The exit code of `work(argv)`, done in a process of its own, and again for as long as that helps.

    Returns in both processes: what the child does next is to end with this code.
    """
    if not hasattr(os, "fork"):
        return work(argv)
    supervisor = _Supervisor()
    while True:
        if supervisor.fork():
            return work(argv)
        code = supervisor.wait()
        if code is not None:
            supervisor.retire()
            return code
        argv = [word for word in argv if word != OVERWRITE]


class _Supervisor:
    """Forks, gives signals on to the child, and judges how that ended."""

    def __init__(self) -> None:
        self.signalled = False  # somebody wants the command to end
        self._child = 0
        self._read = -1
        self._tries = 0
        self._pending: int | None = None
        self._handlers = {number: signal.getsignal(number) for number in FORWARDED}

    def fork(self) -> bool:
        """Makes a child; True in the child."""
        self._read, write = os.pipe()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            self._child = os.fork()
            for number, handler in self._handlers.items():
                mine = signal.SIG_DFL if handler is None else handler
                signal.signal(number, self._forward if self._child else mine)
            if self._child == 0:
                self._become_child(write, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)
        if self._child:
            os.close(write)
        return self._child == 0

    def wait(self) -> int | None:
        """The exit code to end with; None if the child is to be begun again."""
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        pending = self._said()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = 128 + number if number is not None else os.WEXITSTATUS(status)
        if number not in CRASHES and code != BEGIN_AGAIN:
            return code
        progress = pending is None or self._pending is None or pending < self._pending
        self._tries = 1 if progress else self._tries + 1
        self._pending = pending
        ended = "\nThe process lost a worker" if number is None else f"\nThe process was ended by {_name(number)}"
        if pending is not None and not self.signalled and self._tries < TRIES:
            say(f"{ended}. Beginning again; finished shards are kept", file=sys.stderr, flush=True)
            return None
        if self._tries >= TRIES:
            say(
                f"{ended}, for the {TRIES}th time without one more shard done: this is given up. If memory is short, "
                "try fewer --workers or a smaller --batch_size. Finished shards are kept; the same command resumes",
                file=sys.stderr,
            )
        elif number is not None:
            say(f"{ended}; if memory is short, the system ends the largest process", file=sys.stderr)
        return code if number is not None else 1

    def retire(self) -> None:
        """Ignores signals: an interpreter that ends would be ended by them."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)

    def _said(self) -> int | None:
        """How many shards were pending when the child began to work; None if it did not get there."""
        os.set_blocking(self._read, False)
        said = b""
        with suppress(BlockingIOError):  # a process that the child left behind may hold the other end
            said = os.read(self._read, 1 << 16)
        os.close(self._read)
        return int(said.split()[-1]) if said.split() else None

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _become_child(self, write: int, parent: int) -> None:
        global _pipe
        os.close(self._read)
        _pipe = write
        end_with(parent)


def end_with(parent: int) -> None:
    """Have this process end when its parent has."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


def _name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"

"""The flags that say where else the numbers of a run go, beside the screen. They decide nothing of the output."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipelines.flag_values import number
from pipelines.sample import Sample
from pipelines.sinks import JsonLines, Opened, Prometheus, Sink, TensorBoard, Wandb
from pipelines.terminal import say
from transforms.errors import UsageError

LOOPBACK = "127.0.0.1"
PACKAGES = {"metrics_port": "prometheus_client", "wandb": "wandb", "tensorboard": "tensorboard"}
EXTRAS = {"metrics_port": "metrics"}  # called otherwise than the flag


@dataclass(frozen=True)
class Monitoring:
    """None is not asked for."""

    log_to: str | None = None
    metrics_port: int | None = None
    metrics_host: str = LOOPBACK
    wandb: str | None = None
    tensorboard: str | None = None

    def asked(self) -> list[str]:
        """The flags that were given."""
        names = ("log_to", "metrics_port", "wandb", "tensorboard")
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def check(self) -> None:
        """Raise `UsageError` for what cannot be opened, before anything is stored."""
        for name, package in PACKAGES.items():
            if getattr(self, name) is not None and find_spec(package) is None:
                extra = EXTRAS.get(name, name)
                raise UsageError(
                    f"--{name} takes the package {package}, which is not installed: pip install 'vqbeam[{extra}]'"
                )
        for flag, path in (("--log_to", self.log_to), ("--tensorboard", self.tensorboard)):
            if path is not None and "://" in path:
                raise UsageError(f"{flag} {path}: a path on this machine is needed")
        if self.log_to is not None:
            log = Path(self.log_to)
            if log.is_dir() or not os.access(log if log.exists() else log.parent, os.W_OK):
                raise UsageError(f"--log_to {log}: no file can be written there")
        if self.metrics_port is not None:
            _check_port(self.metrics_host, self.metrics_port)

    @contextmanager
    def opened(self, command: str, output: str) -> Iterator[list[Sink]]:
        """What takes the samples of a run of `command` into `output`, while this context is open."""
        about = {"command": command, "output": output}
        with ExitStack() as stack:
            sinks: list[Sink] = []

            def add(sink: Opened) -> None:
                careful = Careful(sink)
                stack.callback(careful.close)
                sinks.append(careful)

            if self.log_to is not None:
                add(JsonLines(self.log_to, about))
            if self.metrics_port is not None:
                add(Prometheus(self.metrics_host, self.metrics_port, about))
            if self.wandb is not None:
                add(Wandb(self.wandb, about))
            if self.tensorboard is not None:
                add(TensorBoard(self.tensorboard, about))
            yield sinks


class Careful:
    """A sink whose errors end itself and not the run, such as those of a disk that is full."""

    def __init__(self, sink: Opened) -> None:
        self._sink = sink
        self._failed = False

    def take(self, sample: Sample, *, last: bool) -> None:
        if not self._failed:
            self._try(partial(self._sink.take, sample, last=last))

    def close(self) -> None:
        self._try(self._sink.close)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # of other packages
            if not self._failed:
                say(f"warning: {type(self._sink).__name__} ends: {type(error).__name__}: {error}", file=sys.stderr)
            self._failed = True


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: not the last run's port
            trial.bind(address)
    except OSError as error:
        raise UsageError(f"--metrics_port {port} on {host}: {error.strerror or error}") from error


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "monitoring", "the numbers of the progress line, elsewhere, too; docs/monitor.md has their names"
    )
    group.add_argument("--log_to", metavar="FILE", help="JSON lines, one every ten seconds; appended to what is there")
    port: Any = partial(number, kind=int, low=1, high=65535, wanted="a port from 1 to 65535")
    group.add_argument("--metrics_port", type=port, metavar="PORT", help="serve them to Prometheus, at /metrics")
    group.add_argument(
        "--metrics_host", default=LOOPBACK, metavar="HOST", help=f"on which address (default {LOOPBACK}, this machine)"
    )
    group.add_argument("--wandb", metavar="PROJECT", help="a run of Weights & Biases")
    group.add_argument("--tensorboard", metavar="DIR", help="event files of TensorBoard")

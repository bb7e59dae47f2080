"""What takes the samples of a run beside the screen: JSON lines, Prometheus, Weights & Biases, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Protocol

from pipelines.sample import Sample
from transforms.errors import UsageError

SECONDS = 10.0  # between two samples that are kept

# The numbers of a sample by their names everywhere, and what they are; docs/monitor.md has the same table.
FIELDS = {
    "shards": "shards of the plan",
    "shards_before": "of these, done by earlier runs",
    "shards_done": "done by now",
    "shards_failed": "failed in this run",
    "shards_in_work": "begun and not ended",
    "rows": "rows that this run has to do; not known before they are counted",
    "rows_done": "through the model or refused before it, parts of batches included",
    "rows_written": "written",
    "rows_rejected": "rejected",
    "rows_filtered": "filtered",
    "rows_per_second": "speed of rows_done over the last minutes",
    "seconds_left": "until rows_done is rows",
    "idle_seconds": "since rows_done grew, if that is longer than usual",
    "read_seconds": "of all workers, reading",
    "decode_seconds": "of all workers, decoding images or preparing prompts",
    "model_seconds": "of all workers, in the model",
    "write_seconds": "of all workers, writing",
}


class Sink(Protocol):
    """Takes the samples of a run; it takes many, and chooses which it shows. The `last` one is always shown."""

    def take(self, sample: Sample, *, last: bool) -> None: ...


class Opened(Sink, Protocol):
    """A sink that holds something open."""

    def close(self) -> None: ...


def numbers(sample: Sample) -> dict[str, float | None]:
    """The fields of a sample; None is not known."""
    stages = {f"{stage}_seconds": round(seconds, 3) for stage, seconds in sample.stages.items()}
    values = vars(sample) | {
        "shards": sample.expected.shards,
        "shards_before": sample.expected.shards_before,
        "idle_seconds": sample.idle,
        **stages,
    }
    return {name: _rounded(values.get(name)) for name in FIELDS}


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if isinstance(value, float) else value


class Pace:
    """Says which samples are kept: the first, one every `SECONDS`, and the last."""

    def __init__(self) -> None:
        self._next = float("-inf")

    def keeps(self, sample: Sample, *, last: bool) -> bool:
        if not last and sample.seconds < self._next:
            return False
        self._next = sample.seconds + SECONDS
        return True


class JsonLines:
    """Appends an object a line to a file, and flushes each."""

    def __init__(self, path: str, about: Mapping[str, str]) -> None:
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise UsageError(f"--log_to {path}: {error.strerror}") from error
        self._about = about
        self._pace = Pace()
        self._event = "start"

    def take(self, sample: Sample, *, last: bool) -> None:
        if not self._pace.keeps(sample, last=last):
            return
        told = {
            "time": round(sample.time, 3),
            "event": "end" if last else self._event,
            **self._about,
            "unit": sample.expected.unit,
            "seconds": round(sample.seconds, 3),
            "doing": sample.doing,
            "step": sample.step,
            "steps": sample.steps,
            **numbers(sample),
        }
        print(json.dumps(told), file=self._file, flush=True)
        self._event = "progress"

    def close(self) -> None:
        self._file.close()


class Prometheus:
    """Serves the newest sample in the text format of Prometheus."""

    def __init__(self, host: str, port: int, about: Mapping[str, str]) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        self._sample: Sample | None = None
        self._about = about
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise UsageError(f"--metrics_port {port} on {host}: {error.strerror}") from error

    def take(self, sample: Sample, *, last: bool) -> None:
        self._sample = sample

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        if self._sample is None:
            return
        for name, value in numbers(self._sample).items():
            if value is not None:
                gauge = GaugeMetricFamily(f"vqbeam_{name}", FIELDS[name], labels=list(self._about))
                gauge.add_metric(list(self._about.values()), value)
                yield gauge

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Wandb:
    """A run of Weights & Biases, which by itself notes the command line and how busy the machine is. What is printed
    stays here."""

    def __init__(self, project: str, about: Mapping[str, str]) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True)
        name = PurePath(about["output"]).name
        try:
            self._run = wandb.init(project=project, name=name, config=dict(about), settings=settings)
        except Exception as error:  # nobody is logged in, no network
            raise UsageError(
                f"--wandb {project}: {error}; `wandb login` once, or WANDB_MODE=offline writes to a folder"
            ) from error
        self._pace = Pace()

    def take(self, sample: Sample, *, last: bool) -> None:
        if self._pace.keeps(sample, last=last):
            self._run.log({name: value for name, value in numbers(sample).items() if value is not None})

    def close(self) -> None:
        self._run.finish()


class TensorBoard:
    """Event files in a folder; the step of a scalar is the number of rows done."""

    def __init__(self, folder: str, about: Mapping[str, str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(folder)
        except OSError as error:
            raise UsageError(f"--tensorboard {folder}: {error.strerror}") from error
        self._pace = Pace()

    def take(self, sample: Sample, *, last: bool) -> None:
        if not self._pace.keeps(sample, last=last):
            return
        for name, value in numbers(sample).items():
            if value is not None:
                self._writer.add_scalar(f"vqbeam/{name}", value, int(sample.rows_done or 0), sample.time)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

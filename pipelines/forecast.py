"""How long what is left of a job will take, and how large it will be: by the shards done, else by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines.local_workers import default_workers
from pipelines.planned_models import NO_MODEL
from pipelines.request import Task
from pipelines.sizing import PlanRequest, image_cost
from transforms.ledger.plan import Plan
from transforms.ledger.sums import Totals

RECORDED, MEASURED, ASSUMED = "recorded", "measured", "assumed"
START_SECONDS = 5.0  # of a command on this machine, until its first batch
ACCURACY = "within a factor of two if nothing else runs"  # 0.84 to 1.25 where it was compared (docs/encode.md)


@dataclass(frozen=True)
class Work:
    """What is left to do: `rows` of the input, of so many `bytes`, in `shards`. `estimated`: only reading the
    rows would tell how many they are, or how many images they become."""

    rows: int
    bytes: float
    shards: int
    estimated: bool = False


@dataclass(frozen=True)
class Forecast:
    """`by`: the shards done (`RECORDED`), a measured machine, or an assumed one. `worker_seconds` are those of all
    workers, `seconds` until the end, None where their number is not known. `bytes` are those that will be written.
    `cost` is None without a price."""

    by: str
    rows: int
    images: int
    worker_seconds: float
    seconds: float | None
    workers: int | None
    bytes: float
    cost: float | None = None

    def at(self, price: float | None) -> Forecast:
        """With what it costs if a machine here, or a worker elsewhere, costs `price` an hour."""
        busy = self.worker_seconds if self.seconds is None else self.seconds
        return self if price is None else replace(self, cost=price * busy / 3600)

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "worker_seconds": round(self.worker_seconds, 3),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "workers": self.workers,
            "bytes": round(self.bytes),
            "cost": None if self.cost is None else round(self.cost, 4),
        }


def forecast(request: PlanRequest, plan: Plan, work: Work, done: Totals) -> Forecast:
    """For `work` of a plan whose finished shards add up to `done`."""
    task, settings = request.task, request.job.settings.over(plan)
    images = work.rows * task.images_per_row
    if done.rows_read and done.seconds:
        by = RECORDED
        busy, size = images * done.seconds / done.rows_read, images * done.bytes / done.rows_read
    else:
        by = MEASURED if request.local and plan.settings["device"] == "cpu" else ASSUMED
        as_run = {**plan.settings, "batch_size": settings.batch_size, "threads_per_worker": settings.threads}
        busy = padded(work, task, as_run) * image_cost(request, as_run, settings.dtype)
        size = float(work.bytes) if task.row_bytes is None else images * task.row_bytes
    if not request.local:
        return Forecast(by, work.rows, images, busy, None, None, size)
    workers = settings.workers or default_workers(settings.device)
    at_once = max(1, min(workers, work.shards))
    seconds = START_SECONDS + busy / at_once if work.rows else 0.0
    return Forecast(by, work.rows, images, busy, seconds, workers, size)


def padded(work: Work, task: Task, settings: Mapping[str, Any]) -> float:
    """The images that are computed: the last batch of a shard costs as much as a full one."""
    images = work.rows * task.images_per_row
    if not work.shards or task.models[0].source == NO_MODEL:
        return images
    batch = int(settings["batch_size"])
    return work.shards * batch * math.ceil(images / work.shards / batch)

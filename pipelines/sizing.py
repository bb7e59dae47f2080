"""How the work of a new plan is run: what the user chose, else what suits the workers, who may be on other machines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.devices import (
    ASSUMED_GPU_BYTES,
    FASTEST,
    gpu_multiplies_bfloat16,
    painting_dtype,
    resolve_device,
    resolve_drawing_dtype,
    resolve_dtype,
)
from pipelines.command import JobCommand
from pipelines.cost import image_seconds, speed_of
from pipelines.machine_speed import ASSUMED_GPU
from pipelines.process import cores
from pipelines.request import JobOptions, Task
from transforms.errors import UsageError
from transforms.ledger.plan import Plan
from transforms.ledger.types import Shard, known_rows

HERE, ELSEWHERE = 120.0, 240.0  # seconds of a shard: what a worker that is stopped or preempted loses
MOST_ROWS = 65536


@dataclass(frozen=True)
class PlanRequest:
    """Everything that a plan is made from. `local`: the workers are processes of this machine."""

    command: JobCommand
    job: JobOptions
    task: Task
    local: bool


def has_own_number(options: Iterable[str]) -> bool:
    """Whether prompts ask for a number of images, given the columns that set how they are drawn."""
    return "images" in map(str.lower, options)


def resolved_settings(request: PlanRequest) -> dict[str, Any]:
    """How the work is run, as the plan stores it: the user's choices, else what suits the device."""
    asked, models = request.job.settings, request.task.models
    device = resolve_device(asked.device) if request.local else asked.device
    kind = "cuda" if device.startswith("cuda") else "cpu"
    gpu = None if request.local else worker_gpu_bytes(request.job)
    first, *others = models
    parts = {
        model.role: {"name": model.name, "source": model.source, "batch_size": model.batch_size(kind, gpu)}
        for model in models
    }
    return {
        "model": first.name,
        "model_source": first.source,
        "device": kind,
        "batch_size": asked.batch_size or first.batch_size(kind, gpu),
        "threads_per_worker": asked.threads or max(1, worker_cores(request) // (asked.workers or 1)),
        "workers": asked.workers or None,
        **({"models": parts} if others else {}),
    }


def worker_gpu_bytes(job: JobOptions) -> int:
    """The memory of the GPU of a worker elsewhere."""
    return job.worker_gpu.bytes if job.worker_gpu else ASSUMED_GPU_BYTES


def worker_gpu_flops(job: JobOptions) -> float:
    """The speed of the GPU of a worker elsewhere."""
    return job.worker_gpu.flops if job.worker_gpu else ASSUMED_GPU


def worker_cores(request: PlanRequest) -> int:
    """The cores that a shard has to itself. Engines do several shards at once on a machine that nothing is known of
    here, one on each core."""
    if request.local:
        return cores()
    return request.job.worker_cores or 1


def default_rows_per_shard(request: PlanRequest, settings: Mapping[str, Any]) -> int:
    """Some minutes of the workers' time: whole batches, by a power of two, so that a machine gives the same number
    again."""
    task = request.task
    seconds = task.images_per_row * image_cost(request, settings, dtype(request, settings))
    whole = max(1, int(settings["batch_size"]) // task.images_per_row)
    rows = min((HERE if request.local else ELSEWHERE) / seconds, MOST_ROWS)
    batches = round(math.log2(max(1.0, rows / whole)))
    return whole << batches


def image_cost(request: PlanRequest, settings: Mapping[str, Any], dtype: str) -> float:
    """The seconds of an image in one of the workers."""
    device = resolve_device(request.job.settings.device) if request.local else str(settings["device"])
    winograd = convolutions(request, str(settings["device"]), dtype) == "winograd"
    speed = speed_of(request.local, device, dtype, worker_gpu_flops(request.job))
    return image_seconds(request.task, settings, dtype, speed, winograd)


def shard_seconds(task: Task, plan: Plan, job: JobOptions) -> float:
    """Roughly how long a worker elsewhere is busy with a whole shard."""
    settings, dtype = plan.settings, str(plan.fingerprint["dtype"])
    speed = speed_of(False, str(settings["device"]), dtype, worker_gpu_flops(job))
    images = int(plan.fingerprint["rows_per_shard"]) * task.images_per_row
    return images * image_seconds(task, settings, dtype, speed)


def fitted(batch_size: int, shards: Sequence[Shard], images_per_row: int) -> int:
    """The smallest power of two, up to `batch_size`, that holds every image of the largest shard; `batch_size` if rows
    have not been counted."""
    counts = [known_rows(shard.slices) for shard in shards]
    if None in counts:
        return batch_size
    most = images_per_row * max(count or 0 for count in counts)
    return min(batch_size, 1 << max(0, most - 1).bit_length())


def dtype(request: PlanRequest, settings: Mapping[str, Any]) -> str:
    """The dtype of a new plan with these settings. Raises `ConfigError`, and `UsageError` for `FASTEST` elsewhere."""
    asked, device, drawn = request.job.settings.dtype, str(settings["device"]), request.task.drawn
    if device == "cuda":
        return resolve_drawing_dtype(asked, device, gpu_bfloat16=gpu_multiplies(request))
    if asked != FASTEST:
        return resolve_drawing_dtype(asked, device)
    if not request.local:
        raise UsageError("--dtype fastest asks this machine's processor, and the workers are other machines: name one")
    if drawn is None:
        return resolve_dtype(asked, device)
    from models.bart.generator import fastest_dtype

    return fastest_dtype(drawn, int(settings["batch_size"]), device)


def gpu_multiplies(request: PlanRequest) -> bool:
    """Whether the GPUs of the workers have arithmetic for bfloat16, as those elsewhere are taken to have if nothing is
    known of them."""
    if request.local:
        return gpu_multiplies_bfloat16(resolve_device(request.job.settings.device))
    return request.job.worker_gpu is None or request.job.worker_gpu.multiplies_bfloat16


def drawing(request: PlanRequest, device: str, dtype: str) -> dict[str, Any]:
    """What new plans choose for a network that draws on a CPU. Its VQGAN is in float32 if drawn codes are in less and
    this processor has no arithmetic for that; what workers on other machines have is not known."""
    config = request.task.drawn
    if config is None or device != "cpu" or not config.is_large(dtype):
        return {}
    painted = painting_dtype(dtype, device)
    return {"products": "panels", "painted_in": painted if request.local and painted != dtype else None}


def convolutions(request: PlanRequest, device: str, dtype: str) -> str:
    """How new plans compute them; workers on other machines may lack what the faster way needs."""
    from models.winograd.layers import suits

    task = request.task
    ours = request.local and task.backend == "torch"
    if ours and any(model.convolutional and suits(device, dtype, model.flops) for model in task.models):
        return "winograd"
    return "direct"

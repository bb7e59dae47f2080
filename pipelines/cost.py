"""What an image costs a worker: the arithmetic of its networks by the speed of its machine, and the files around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.bart.config import DalleBartConfig
from models.devices import INT8, painting_dtype
from pipelines.machine_speed import ASSUMED_GPU, HALF, Speed, assumed, speed_here
from pipelines.request import Task

# Of the speed of one convolution: what whole networks reach, and how much Winograd's algorithm gains.
NETWORK_SHARE = {"cpu": 0.6, "cuda": 1.0}
WINOGRAD_GAIN = 1.7
# Of the speed in float32, or of that in the dtype if it is higher: what drawing reaches, int8 by products of bytes.
DRAWN_SHARE = {"cpu": 0.27, "cuda": 0.2}
INT8_SHARE = 0.42
STEP_SECONDS = {"cpu": 1e-3, "cuda": 1.3e-3}  # of a code, beside arithmetic and memory
READ_SECONDS = 3e-3  # of a core, to decode and resize a JPEG of 450 pixels a side
WRITTEN_SECONDS = 1.5e-7  # of a core, a pixel of a PNG
ROW_SECONDS = 5e-5  # of a core: what a row costs that only moves; `export` moves it twice


def image_seconds(task: Task, settings: Mapping[str, Any], dtype: str, speed: Speed, winograd: bool = False) -> float:
    """The seconds of an image in a worker with these settings, in full batches."""
    kind, threads = str(settings["device"]), int(settings["threads_per_worker"])
    cores = threads if kind == "cpu" else 1
    rate = speed.flops[painted(dtype, kind)] * NETWORK_SHARE[kind] * cores
    device = 0.0
    for model in task.models:
        if task.drawn is not None and model.role == "bart":
            device += _drawing(task.drawn, int(settings["batch_size"]), dtype, speed, kind, cores)
        else:
            device += model.work / (rate * (WINOGRAD_GAIN if winograd and model.convolutional else 1.0))
    host = ROW_SECONDS + (READ_SECONDS / task.images_per_row if task.input.kind == "images" else 0.0)
    host += WRITTEN_SECONDS * task.pixels
    return device + host / threads if kind == "cpu" else max(device, host / threads)


def painted(dtype: str, device: str) -> str:
    """The dtype of the networks around one that draws in `dtype`, as `machine_speed` knows it."""
    return painting_dtype(dtype, device) if dtype == INT8 else dtype


def dtypes(dtype: str, device: str) -> tuple[str, ...]:
    """Those whose speed decides."""
    return tuple(dict.fromkeys((painted(dtype, device), "float32")))


def speed_of(local: bool, device: str, dtype: str, gpu: float = ASSUMED_GPU) -> Speed:
    """Of the machine of the workers, if that is this one; else what is assumed, of a GPU of this speed."""
    kind = device.partition(":")[0]
    return speed_here(device, dtypes(dtype, kind)) if local else assumed(kind, dtypes(dtype, kind), gpu)


def _drawing(config: DalleBartConfig, images: int, dtype: str, speed: Speed, kind: str, cores: int) -> float:
    """An image of a batch of so many: each code reads all weights once, and multiplies them with two rows an image."""
    weights = config.flops / (4 * config.image_length)
    width = 1 if dtype == INT8 else 2 if dtype in HALF else 4
    plain = speed.flops["float32"]
    rate = plain * INT8_SHARE if dtype == INT8 else max(plain, speed.flops[dtype]) * DRAWN_SHARE[kind]
    step = STEP_SECONDS[kind] + weights * width / speed.memory + 2 * images * 2 * weights / (rate * cores)
    return config.image_length * step / images

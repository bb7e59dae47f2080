"""The GPUs that Google Cloud gives to workers: which machines have how many of them."""

from __future__ import annotations

import argparse
import difflib
import re
from dataclasses import dataclass
from typing import Any

from pipelines.machine_speed import gpu_flops

# For each type and number the smallest machine with cores enough to decode images for these GPUs. Only the machines of
# N1 take GPUs of several types: the others come with theirs, so that a job with another pair never starts.
# https://cloud.google.com/compute/docs/gpus has the table.
MACHINES: dict[str, dict[int, str]] = {
    "nvidia-l4": {1: "g2-standard-8", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
    "nvidia-tesla-t4": {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"},
    "nvidia-tesla-v100": {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32", 8: "n1-standard-64"},
    "nvidia-tesla-a100": {count: f"a2-highgpu-{count}g" for count in (1, 2, 4, 8)} | {16: "a2-megagpu-16g"},
    "nvidia-a100-80gb": {count: f"a2-ultragpu-{count}g" for count in (1, 2, 4, 8)},
    "nvidia-h100-80gb": {count: f"a3-highgpu-{count}g" for count in (1, 2, 4, 8)},
}


@dataclass(frozen=True)
class Gpu:
    """One of a type. `gib`: what it leaves of its memory to programs, a little less than its name says; `capability`
    and `processors` are those of NVIDIA's tables."""

    gib: int
    capability: tuple[int, int]
    processors: int

    @property
    def bytes(self) -> int:
        return self.gib << 30

    @property
    def flops(self) -> float:
        """As `Speed` has it, in the fastest dtype."""
        return gpu_flops(self.capability, self.processors)

    @property
    def multiplies_bfloat16(self) -> bool:
        """See `models.devices.gpu_multiplies_bfloat16`."""
        return self.capability >= (8, 0)


GPUS = {
    "nvidia-l4": Gpu(22, (8, 9), 58),
    "nvidia-tesla-t4": Gpu(14, (7, 5), 40),
    "nvidia-tesla-v100": Gpu(15, (7, 0), 80),
    "nvidia-tesla-a100": Gpu(39, (8, 0), 108),
    "nvidia-a100-80gb": Gpu(79, (8, 0), 108),
    "nvidia-h100-80gb": Gpu(79, (9, 0), 132),
}
CORES_PER_GPU = {"a2-highgpu": 12, "a2-ultragpu": 12, "a2-megagpu": 6, "a3-highgpu": 26}
SERVICE_OPTION = re.compile(r"worker_accelerator=type:(?P<kind>[^;]+);count:(?P<count>\d+)")


@dataclass(frozen=True)
class Accelerator:
    """`count` GPUs of the type `kind` in each worker."""

    kind: str
    count: int

    @property
    def machine(self) -> str | None:
        """The machine type that goes with them; None for a type that is not in the table."""
        return MACHINES.get(self.kind, {}).get(self.count)

    @property
    def gpu(self) -> Gpu | None:
        """One of them; None for a type that is not in the table."""
        return GPUS.get(self.kind)

    @property
    def family(self) -> str:
        """The series of machines that they exist in, "g2-"; empty for a type that is not in the table."""
        return next(iter(MACHINES.get(self.kind, {}).values()), "-").partition("-")[0] + "-"

    @property
    def service_option(self) -> str:
        """The value of Dataflow's service option, driver included. A shell would end the command at its semicolons."""
        return f"worker_accelerator=type:{self.kind};count:{self.count};install-nvidia-driver"


def accelerator(text: str) -> Accelerator:
    """ "nvidia-l4:1", or "nvidia-l4" for one."""
    kind, _, number = text.partition(":")
    if not re.fullmatch(r"[1-9]\d*", number or "1") or not re.fullmatch(r"[a-z0-9-]+", kind):
        raise argparse.ArgumentTypeError(f"{text!r}: expected TYPE:COUNT such as nvidia-l4:1")
    found = Accelerator(kind, int(number or 1))
    if kind not in MACHINES:
        near = [name for name in MACHINES if name.endswith(f"-{kind}")] or difflib.get_close_matches(kind, MACHINES)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(MACHINES)}"
        raise argparse.ArgumentTypeError(f"{text!r}: unknown type of GPU; {hint}")
    if found.machine is None:
        counts = ", ".join(map(str, MACHINES[kind]))
        raise argparse.ArgumentTypeError(f"{text!r}: a machine has {counts} of {kind}")
    return found


def asked_of_service(service_options: list[str] | None) -> Accelerator | None:
    """The GPUs that Dataflow's own option asks for."""
    for option in service_options or ():
        match = SERVICE_OPTION.match(option)
        if match:
            return Accelerator(match["kind"], int(match["count"]))
    return None


def cores_of(machine: str | None) -> int | None:
    """The virtual cores of a machine type, None if its name does not say it."""
    if machine is None:
        return None
    series, _, last = machine.rpartition("-")
    if series in CORES_PER_GPU and last.endswith("g") and last[:-1].isdecimal():
        return CORES_PER_GPU[series] * int(last[:-1])
    return int(last) if last.isdecimal() else None


FLAG: dict[str, Any] = {
    "type": accelerator,
    "metavar": "TYPE:COUNT",
    "help": f"GPUs of each worker on Dataflow ({', '.join(MACHINES)}); machine type, driver and threads follow",
}

"""What the parts of `benchmarks.gpu_check` share: what they get and give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


class Absent(Exception):
    """Something that a part needs is not on this machine."""


@dataclass(frozen=True)
class Row:
    """A figure, or a promise that was kept: then `value` is the share of what was as it should be."""

    what: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """Where and how large. `peaks` are those of the part "peaks": FLOP/s by dtype, and B/s of "memory"."""

    device: str
    quick: bool
    peaks: dict[str, float] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "tf32", "bfloat16") if self.on_gpu else ("float32",)  # a CPU shows that the script works

    def need_gpu(self) -> None:
        """Raises `Absent` without one."""
        if not self.on_gpu:
            raise Absent("needs a GPU")

    def share(self, flops: float, dtype: str) -> str:
        """ "34 % of the bfloat16 peak" for so many FLOP/s; empty if the peak has not been measured."""
        peak = self.peaks.get(dtype)
        return f"{flops / peak:.0%} of the {dtype} peak" if peak else ""


@dataclass(frozen=True)
class Part:
    """A name for `--only`, what gives the rows, and for how long it may."""

    name: str
    run: Callable[[Setting], Iterable[Row]]
    seconds: float


def rate(work: Callable[[], int], seconds: float) -> float:
    """What `work` counts a second, over at least a call and `seconds` after one to warm up."""
    work()
    began, count, calls = time.perf_counter(), 0, 0
    while not calls or time.perf_counter() - began < seconds:
        count += work()
        calls += 1
    return count / (time.perf_counter() - began)


def require(kept: bool, what: str) -> None:
    """Raises `RuntimeError` that says what is broken."""
    if not kept:
        raise RuntimeError(what)

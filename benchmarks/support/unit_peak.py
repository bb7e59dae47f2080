"""What a processor's units can multiply at most: sums in registers, and nothing is loaded."""

from __future__ import annotations

import time
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.bart.compiled import LANES
from models.bart.compiled.panels import WHOLE
from models.bart.compiled.vectors import FLAG, VECTOR, Loop, call, multiply_add, total

SUMS = 16  # enough that none waits for another
TURNS = 2_000_000


@intrinsic
def _of_singles(context: Any, turns: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor = ir.Constant(VECTOR, [0.5] * LANES)
        with Loop(builder, arguments[0], [ir.Constant(VECTOR, [float(n)] * LANES) for n in range(SUMS)]) as loop:
            loop.keep([multiply_add(builder, each, factor, factor) for each in loop.values])
        return sum_of(builder, loop.last)

    return types.float32(types.intp), build


@intrinsic
def _of_bytes(context: Any, turns: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        with Loop(builder, arguments[0], [ir.Constant(WHOLE, [n] * LANES) for n in range(SUMS)]) as loop:
            number = builder.trunc(loop.number, FLAG)
            factor = builder.insert_element(ir.Constant(WHOLE, [1] * LANES), number, FLAG(0))
            added = [call(builder, "llvm.x86.avx512.vpdpbusd.512", WHOLE, e, factor, factor) for e in loop.values]
            loop.keep(added)
        return sum_of(builder, [builder.sitofp(each, VECTOR) for each in loop.last])

    return types.float32(types.intp), build


def sum_of(builder: Any, vectors: list[Any]) -> Any:
    """One number that depends on all, so that none is left out."""
    whole = vectors[0]
    for vector in vectors[1:]:
        whole = builder.fadd(whole, vector)
    return total(builder, whole)


def unit_peak(*, of_bytes: bool) -> float:
    """Operations/s of one core, the fastest of some attempts by processor time: of float32, or of bytes."""
    chosen = _of_bytes if of_bytes else _of_singles
    work = numba.njit(lambda turns: chosen(turns))
    work(1)
    seconds = []
    for _ in range(7):
        start = time.thread_time()
        work(TURNS)
        seconds.append(time.thread_time() - start)
    return TURNS * SUMS * LANES * 2 * (4 if of_bytes else 1) / min(seconds)

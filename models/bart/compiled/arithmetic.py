"""Functions of one number or one row, written so that loops of them become vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from models.bart.compiled import LANES
from models.bart.compiled.compiling import compiled
from models.bart.compiled.vectors import FLAG, SINGLE, SIZE, VECTOR, Loop, address_of, load, multiply_add, spread, total
from models.bart.network import NORM_EPS
from models.machine_code import Array

EPS = np.float32(NORM_EPS)
EXP2 = tuple(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(8))  # Taylor: 5e-9 within half a power
ERFC = tuple(np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
ERFC_P = np.float32(0.3275911)  # Abramowitz and Stegun, 1964, 7.1.26: 1.5e-7


@intrinsic
def bits(context: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], FLAG)

    return types.uint32(types.float32), build


@intrinsic
def of_bits(context: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], SINGLE)

    return types.float32(types.int32), build


def rounded(value: Any, array: Any) -> Any:
    """A float32 as a value of `array`."""


@overload(rounded)
def _rounded_to(value: Any, array: Any) -> Any:
    def nearest(value: Any, array: Any) -> Any:
        given = bits(value)
        whole = given + np.uint32(0x7FFF) + ((given >> np.uint32(16)) & np.uint32(1))
        if value != value:  # what is no number would be rounded to zero or infinity
            whole = given | np.uint32(0x400000)
        return np.uint16(whole >> np.uint32(16))

    def same(value: Any, array: Any) -> Any:
        return value

    return nearest if array.dtype == types.uint16 else same


@intrinsic
def _fused(context: Any, a: Any, b: Any, c: Any) -> Any:
    """`multiply_add` of float32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return multiply_add(builder, *arguments)

    return types.float32(types.float32, types.float32, types.float32), build


@compiled
def exp(x: float) -> float:
    """The exponential of a float32 that is at most 0; a loop of it becomes vectors."""
    power = x * np.float32(math.log2(math.e))
    if power < np.float32(-126):
        power = np.float32(-126)
    whole = np.float32(np.floor(power + np.float32(0.5)))
    part = power - whole
    value = EXP2[7]
    for n in range(7):
        value = _fused(value, part, EXP2[6 - n])
    return value * of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@compiled
def gelu(x: float) -> float:
    z = abs(x) * np.float32(math.sqrt(0.5))
    t = np.float32(1) / _fused(ERFC_P, z, np.float32(1))
    value = ERFC[4]
    for n in range(4):
        value = _fused(value, t, ERFC[3 - n])
    half = np.float32(0.5) * x * (value * t * exp(-z * z))
    return x - half if x >= 0 else half


@intrinsic
def _vector_sums(context: Any, x: Any, less: Any, count: Any) -> Any:
    """The `sums` of `count` vectors, at least one."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, less = address_of(context, builder, signature, arguments, 0, SIZE(0)), spread(builder, arguments[1])
        with Loop(builder, arguments[2], [ir.Constant(VECTOR, [0.0] * LANES)] * 2) as loop:
            values = builder.fsub(load(builder, source, 4, loop.number), less)
            loop.keep([builder.fadd(loop.values[0], values), multiply_add(builder, values, values, loop.values[1])])
        return context.make_tuple(builder, signature.return_type, [total(builder, each) for each in loop.last])

    return types.UniTuple(types.float32, 2)(x, types.float32, types.intp), build


@compiled
def sums(x: Array, less: float, count: int) -> tuple[float, float]:
    """The sums of the first `count` of float32 `x`, each less float32 `less`, and of their squares."""
    vectors = count // LANES
    whole, squares = _vector_sums(x, less, vectors) if vectors else (np.float32(0), np.float32(0))
    for i in range(vectors * LANES, count):
        value = x[i] - less
        whole += value
        squares = _fused(value, value, squares)
    return whole, squares


@compiled
def norm(x: Array, scale_bias: Array, out: Array) -> None:
    """Layer norm of one row [D] -> the first D of `out`, which may be `x`."""
    size = scale_bias.shape[1]
    mean = sums(x, np.float32(0), size)[0] / np.float32(size)
    variance = sums(x, mean, size)[1] / np.float32(size)
    factor = np.float32(1 / math.sqrt(variance + EPS))
    for i in range(size):
        out[i] = rounded(_fused((x[i] - mean) * factor, scale_bias[0, i], scale_bias[1, i]), out)

"""Products of rows with a decoder's weights."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.bart.compiled import LANES, TURN
from models.bart.compiled.compiling import compiled
from models.bart.compiled.panels import dense_of_panels
from models.bart.compiled.tiles import dense_of_tiles
from models.bart.compiled.vectors import SIZE, VECTOR, Loop, address_of, load, multiply_add, prefetch, total
from models.machine_code import Array
from models.team import NONE, Team, member, parts_of, take

AHEAD = 4096  # bytes between the weights that are read and those that are prefetched


@intrinsic
def _dot_pair(context: Any, weights: Any, first: Any, rows: Any, row: Any, count: Any) -> Any:
    """`count` weights from `first` on, times two neighbouring rows [count] that begin at `row`: two float32."""
    width = weights.dtype.bitwidth // 8

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = arguments[4]
        source = address_of(context, builder, signature, arguments, 0)
        upper = address_of(context, builder, signature, arguments, 2)
        lower = builder.gep(upper, [builder.mul(count, SIZE(4))])
        nothing = [ir.Constant(VECTOR, [0.0] * LANES)] * 4
        with Loop(builder, builder.sdiv(count, SIZE(TURN)), nothing) as loop:
            here = builder.gep(source, [builder.mul(loop.number, SIZE(TURN * width))])
            prefetch(builder, here, AHEAD, AHEAD + max(64, TURN * width))
            sums: list[Any] = []
            for half in range(2):
                at = builder.add(builder.mul(loop.number, SIZE(2)), SIZE(half))
                weight = load(builder, source, width, at)
                for base in (upper, lower):
                    value = load(builder, base, 4, at)
                    sums.append(multiply_add(builder, weight, value, loop.values[len(sums)]))
            loop.keep(sums)
        found = [total(builder, builder.fadd(sums[n], sums[2 + n])) for n in range(2)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float32, 2)(weights, types.intp, rows, types.intp, types.intp), build


@compiled
def _dense_of_pairs(weight: Array, scale: Array, x: Array, out: Array, team: Team) -> None:
    """[O, I] of float32, bfloat16 or int8 times float32 `x` [R, I], two rows at a time, so R is even."""
    outputs, inputs = weight.shape
    weights, rows = weight.reshape(-1), x.reshape(-1)
    parts = parts_of(team, outputs)
    part = take(team, parts, NONE)
    while part != NONE:
        for o in range(outputs * part // parts, outputs * (part + 1) // parts):
            for r in range(0, len(x), 2):
                a, b = _dot_pair(weights, o * inputs, rows, r * inputs, inputs)
                out[r, o], out[r + 1, o] = a * scale[o], b * scale[o]
        part = take(team, parts, part)


@compiled
def dense(weight: Array, scale: Array, x: Array, out: Array, room: Array, team: Team) -> None:
    """A matrix of `Matrices` times `x` [R, inputs] -> float32 `out` [R, outputs or more].

    `x` is float32, for a matrix unit bfloat16. A few rows are dot products: each weight is used as soon as it arrives.
    `room` is what the kind of product asks for.
    """
    if weight.ndim == 2:
        _dense_of_pairs(weight, scale, x, out, team)
    elif weight.ndim == 5:
        dense_of_tiles(weight, x, out, room, team)
    else:
        dense_of_panels(weight, scale, x, out, room, team)


@compiled
def dense_alone(weight: Array, scale: Array, x: Array, out: Array, room: Array, board: Array, number: int) -> None:
    """`dense` for `Threads.run`, in two turns at most."""
    dense(weight, scale, x, out, room, member(board, number))

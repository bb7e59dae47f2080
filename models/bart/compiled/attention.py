"""Attention of single queries to caches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.bart.compiled import LANES
from models.bart.compiled.arithmetic import exp, rounded, sums
from models.bart.compiled.compiling import compiled
from models.bart.compiled.vectors import (
    SINGLE,
    SIZE,
    VECTOR,
    Loop,
    address_of,
    call,
    load,
    multiply_add,
    prefetch,
    spread,
    total,
)
from models.machine_code import Array
from models.team import NONE, Team, parts_of, take


@intrinsic
def _scores(
    context: Any, parts: Any, query: Any, q: Any, keys: Any, k: Any, count: Any, values: Any, v: Any, out: Any
) -> Any:
    """`query` times the first `count` of `keys` -> `out`; returns the largest, prefetches `values`."""
    width, vectors = keys.dtype.bitwidth // 8, len(parts)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        asked, source = (address_of(context, builder, signature, arguments, n) for n in (1, 3))
        following = address_of(context, builder, signature, arguments, 6)
        target = address_of(context, builder, signature, arguments, 8, SIZE(0))
        parts = [load(builder, asked, 4, SIZE(n)) for n in range(vectors)]
        with Loop(builder, arguments[5], [SINGLE(-math.inf)]) as loop:
            step = SIZE(vectors * LANES * width)
            prefetch(builder, builder.gep(following, [builder.mul(loop.number, step)]), 0, vectors * LANES * width)
            here = builder.gep(source, [builder.mul(loop.number, step)])
            products = ir.Constant(VECTOR, [0.0] * LANES)
            for n, part in enumerate(parts):
                products = multiply_add(builder, load(builder, here, width, SIZE(n)), part, products)
            score = total(builder, products)
            pointer = builder.gep(target, [builder.mul(loop.number, SIZE(4))])
            builder.store(score, builder.bitcast(pointer, SINGLE.as_pointer()))
            loop.keep([call(builder, "llvm.maxnum.f32", SINGLE, loop.values[0], score)])
        return loop.last[0]

    size = types.intp
    return types.float32(parts, query, size, keys, size, size, values, size, out), build


@intrinsic
def _weighted(
    context: Any, parts: Any, weights: Any, values: Any, v: Any, count: Any, keys: Any, k: Any, out: Any
) -> Any:
    """The sum of the first `count` of `values` times `weights` -> float32 `out`; prefetches the next `keys`."""
    width, vectors = values.dtype.bitwidth // 8, len(parts)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factors = address_of(context, builder, signature, arguments, 1, SIZE(0))
        source, following = (address_of(context, builder, signature, arguments, n) for n in (2, 5))
        target = address_of(context, builder, signature, arguments, 7, SIZE(0))
        with Loop(builder, arguments[4], [ir.Constant(VECTOR, [0.0] * LANES)] * vectors) as loop:
            step = SIZE(vectors * LANES * width)
            prefetch(builder, builder.gep(following, [builder.mul(loop.number, step)]), 0, vectors * LANES * width)
            here = builder.gep(source, [builder.mul(loop.number, step)])
            pointer = builder.gep(factors, [builder.mul(loop.number, SIZE(4))])
            factor = spread(builder, builder.load(builder.bitcast(pointer, SINGLE.as_pointer())))
            found = [load(builder, here, width, SIZE(n)) for n in range(vectors)]
            loop.keep([multiply_add(builder, f, factor, s) for f, s in zip(found, loop.values, strict=True)])
        for n, vector in enumerate(loop.last):
            pointer = builder.gep(target, [SIZE(4 * LANES * n)])
            builder.store(vector, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    size = types.intp
    return types.void(parts, weights, values, size, size, keys, size, out), build


@compiled
def attend(
    parts: tuple[int, ...],
    query: Array,
    keys: Array,
    values: Array,
    group: Array,
    counts: Array,
    out: Array,
    team: Team,
) -> None:
    """Attention of rows of `query` [at least R, at least D] to the first `counts` [R] positions of their `group` [R].

    `keys` and `values`: [groups, heads, positions, head size]; `parts`: as many numbers as vectors make a head. The
    result: `out` [at least R, D].
    """
    heads, positions, size = keys.shape[1:]
    scale = np.float32(1 / math.sqrt(size))
    asked, all_keys, all_values = query.reshape(-1), keys.reshape(-1), values.reshape(-1)
    jobs = len(group) * heads
    score, found = np.empty(positions, np.float32), np.empty(size, np.float32)
    shares = parts_of(team, jobs)
    share = take(team, shares, NONE)
    while share != NONE:
        last = jobs * (share + 1) // shares - 1
        for job in range(jobs * share // shares, last + 1):
            row, head = job // heads, job % heads
            first = (group[row] * heads + head) * positions * size
            following = min(job + 1, last)
            after = (group[following // heads] * heads + following % heads) * positions * size
            count = counts[row]
            q = row * query.shape[1] + head * size
            largest = _scores(parts, asked, q, all_keys, first, count, all_values, first, score)
            for position in range(count):
                score[position] = exp((score[position] - largest) * scale)
            whole = sums(score, np.float32(0), count)[0]
            _weighted(parts, score, all_values, first, count, all_keys, after, found)
            for i in range(size):
                out[row, head * size + i] = rounded(found[i] / whole, out)
        share = take(team, shares, share)

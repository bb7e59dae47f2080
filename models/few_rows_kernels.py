"""Compiled steps of a decoder for a few rows on a CPU; `models/few_rows.py` calls them.

A product of two rows takes as long as its weights take to arrive from memory. Libraries leave a third of that speed
unused: here each thread asks for the weights some kilobytes ahead of where it reads. Weights may be float32, the upper
halves of float32 (bfloat16) as uint16, or int8 with a scale for each output; everything else is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from models.dalle_bart import NORM_EPS
from models.few_rows import TURN

LANES = TURN // 2  # float32 values in the widest register
AHEAD = 4096  # bytes
EPS = np.float32(NORM_EPS)

Array = Any  # numpy arrays, whose types numba finds by itself


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`function` as machine code, which is kept for later processes where there is a folder for it."""
    options |= {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}  # what is no number stays none
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(**options)(function)


def _compiled_for_threads(function: Callable[..., Any]) -> Any:
    return _compiled(function, parallel=True)


class Matrices(NamedTuple):
    """`weight` [N, outputs, inputs] of N layers; what each output is multiplied with, float32 [N, outputs]."""

    weight: Array
    scale: Array


class Layers(NamedTuple):
    """Weights of all N layers; norms are float32 [N, 2, size], scale and bias."""

    own_norm: Array
    own_in: Matrices  # D to 3 D: query, key, value
    own_out: Matrices
    own_branch_norm: Array
    text_norm: Array
    text_in: Matrices
    text_out: Matrices
    text_branch_norm: Array
    glu_norm: Array
    gate: Matrices  # D to hidden, as gated
    gated: Matrices
    hidden_norm: Array
    glu_out: Matrices  # hidden, rounded up to whole turns with zeros, to D


class Attended(NamedTuple):
    """Keys and values float32 [N, groups, heads, places, head size]; the group of each row, int64 [R]."""

    keys: Array
    values: Array
    group: Array


class Scratch(NamedTuple):
    """What a step writes between its operations, float32 [R, ...]."""

    normed: Array  # [R, D]
    projected: Array  # [R, 3 D]
    found: Array  # [R, D]
    hidden: Array  # [R, hidden rounded up]; the rest stays zero
    scores: Array  # [R, heads, places]


@intrinsic
def _dot_pair(context: Any, weights: Any, first: Any, rows: Any, row: Any, count: Any) -> Any:
    """`count` weights from `first` on, times two neighbouring rows [count] that begin at `row`: two float32."""
    signature = types.UniTuple(types.float32, 2)(weights, types.intp, rows, types.intp, types.intp)
    return signature, _build_dot_pair


def _build_dot_pair(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    single, size = ir.FloatType(), ir.IntType(64)
    vector, short = ir.VectorType(single, LANES), ir.VectorType(ir.IntType(16), LANES)
    wide, narrow = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(8), LANES)
    byte = ir.IntType(8).as_pointer()
    width = signature.args[0].dtype.bitwidth // 8
    module, flag = builder.module, ir.IntType(32)
    prefetch = cgutils.get_or_insert_function(
        module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
    )
    multiply_add = cgutils.get_or_insert_function(
        module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
    )
    total = cgutils.get_or_insert_function(
        module, ir.FunctionType(single, [single, vector]), f"llvm.vector.reduce.fadd.v{LANES}f32"
    )
    array, first, rows, row, count = arguments
    source = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, [first])
    upper = builder.gep(context.make_array(signature.args[2])(context, builder, rows).data, [row])
    lower = builder.gep(upper, [count])

    before, loop, after = builder.block, builder.append_basic_block("turn"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    place = builder.phi(size)
    place.add_incoming(size(0), before)
    sums = [builder.phi(vector) for _ in range(4)]
    for each in sums:
        each.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
    for line in range(max(1, TURN * width // 64)):
        ahead = builder.gep(source, [builder.add(place, size((AHEAD + 64 * line) // width))])
        builder.call(prefetch, [builder.bitcast(ahead, byte), flag(0), flag(2), flag(1)])  # to read, into L2, data
    added = []
    for half in range(2):
        at = builder.add(place, size(half * LANES))
        pointer = builder.gep(source, [at])
        if width == 4:
            weight = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)
        elif width == 1:
            numbers = builder.load(builder.bitcast(pointer, narrow.as_pointer()), align=1)
            weight = builder.sitofp(builder.sext(numbers, wide), vector)
        else:
            bits = builder.zext(builder.load(builder.bitcast(pointer, short.as_pointer()), align=2), wide)
            weight = builder.bitcast(builder.shl(bits, ir.Constant(wide, [16] * LANES)), vector)
        for number, base in enumerate((upper, lower)):
            value = builder.load(builder.bitcast(builder.gep(base, [at]), vector.as_pointer()), align=4)
            added.append(builder.call(multiply_add, [weight, value, sums[2 * half + number]]))
    following = builder.add(place, size(TURN))
    place.add_incoming(following, builder.block)
    for each, new in zip(sums, added, strict=True):
        each.add_incoming(new, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    products = [
        builder.call(total, [single(0.0), builder.fadd(added[n], added[2 + n])], fastmath=("reassoc",))
        for n in range(2)
    ]
    return context.make_tuple(builder, signature.return_type, products)


@_compiled_for_threads
def dense(weight: Array, scale: Array, x: Array, out: Array, threads: int) -> None:
    """[O, I] times [R, I] -> `out` [R, O] (its first O columns); R is even, I a multiple of `TURN`."""
    outputs, inputs = weight.shape
    weights, rows = weight.reshape(-1), x.reshape(-1)
    for thread in prange(threads):
        for o in range(outputs * thread // threads, outputs * (thread + 1) // threads):
            for r in range(0, len(x), 2):
                a, b = _dot_pair(weights, o * inputs, rows, r * inputs, inputs)
                out[r, o], out[r + 1, o] = a * scale[o], b * scale[o]


@_compiled_for_threads
def gated_dense(gate: Matrices, gated: Matrices, n: int, x: Array, out: Array, threads: int) -> None:
    """gelu of one product of layer `n`, times another: D to hidden -> `out` [R, hidden] (its first columns)."""
    outputs, inputs = gate.weight[n].shape
    gates, others, rows = gate.weight[n].reshape(-1), gated.weight[n].reshape(-1), x.reshape(-1)
    scale, other_scale = gate.scale[n], gated.scale[n]
    for thread in prange(threads):
        for o in range(outputs * thread // threads, outputs * (thread + 1) // threads):
            for r in range(0, len(x), 2):
                a, b = _dot_pair(gates, o * inputs, rows, r * inputs, inputs)
                c, d = _dot_pair(others, o * inputs, rows, r * inputs, inputs)
                out[r, o] = _gelu(a * scale[o]) * c * other_scale[o]
                out[r + 1, o] = _gelu(b * scale[o]) * d * other_scale[o]


@_compiled
def _gelu(x: float) -> float:
    return np.float32(0.5) * x * (np.float32(1) + np.float32(math.erf(x * np.float32(math.sqrt(0.5)))))


@_compiled_for_threads
def attend(query: Array, keys: Array, values: Array, group: Array, counts: Array, scores: Array, out: Array) -> None:
    """Attention of each row's `query` [R, at least D] to the first `counts` [R] places of its group -> `out` [R, D]."""
    heads, size = keys.shape[1], keys.shape[3]
    scale = np.float32(1 / math.sqrt(size))
    for job in prange(len(out) * heads):
        row, head = job // heads, job % heads
        asked = query[row, head * size : (head + 1) * size]
        key, value = keys[group[row], head], values[group[row], head]
        score, found = scores[row, head], out[row, head * size : (head + 1) * size]
        largest = np.float32(-np.inf)
        for place in range(counts[row]):
            total = np.float32(0)
            for i in range(size):
                total += asked[i] * key[place, i]
            score[place] = total * scale
            largest = max(largest, score[place])
        whole = np.float32(0)
        found[:] = 0
        for place in range(counts[row]):
            weight = np.float32(math.exp(score[place] - largest))
            whole += weight
            for i in range(size):
                found[i] += weight * value[place, i]
        for i in range(size):
            found[i] /= whole


@_compiled
def norm(x: Array, scale_bias: Array, out: Array) -> None:
    """Layer norm of rows [R, D] -> the first D columns of `out`, which may be `x`."""
    size = scale_bias.shape[1]
    for row in range(len(x)):
        mean = np.float32(0)
        for i in range(size):
            mean += x[row, i]
        mean /= np.float32(size)
        variance = np.float32(0)
        for i in range(size):
            variance += (x[row, i] - mean) ** 2
        factor = np.float32(1 / math.sqrt(variance / np.float32(size) + EPS))
        for i in range(size):
            out[row, i] = (x[row, i] - mean) * factor * scale_bias[0, i] + scale_bias[1, i]


@_compiled
def run_layers(
    x: Array,
    position: int,
    layers: Layers,
    own: Attended,
    text: Attended,
    pieces: Array,
    scratch: Scratch,
    threads: int,
) -> None:
    """All layers' branches onto `x` float32 [R, D], for the code at `position`; `pieces` [R]: of each row's caption."""
    rows, size = x.shape
    heads, head_size = own.keys.shape[2], own.keys.shape[4]
    filled = np.full(rows, position + 1)
    for n in range(len(layers.own_norm)):
        norm(x, layers.own_norm[n], scratch.normed)
        dense(layers.own_in.weight[n], layers.own_in.scale[n], scratch.normed, scratch.projected, threads)
        for row in range(rows):
            for head in range(heads):
                for i in range(head_size):
                    own.keys[n, row, head, position, i] = scratch.projected[row, size + head * head_size + i]
                    own.values[n, row, head, position, i] = scratch.projected[row, 2 * size + head * head_size + i]
        attend(scratch.projected, own.keys[n], own.values[n], own.group, filled, scratch.scores, scratch.found)
        dense(layers.own_out.weight[n], layers.own_out.scale[n], scratch.found, scratch.normed, threads)
        norm(scratch.normed, layers.own_branch_norm[n], scratch.normed)
        x += scratch.normed
        norm(x, layers.text_norm[n], scratch.normed)
        dense(layers.text_in.weight[n], layers.text_in.scale[n], scratch.normed, scratch.projected, threads)
        attend(scratch.projected, text.keys[n], text.values[n], text.group, pieces, scratch.scores, scratch.found)
        dense(layers.text_out.weight[n], layers.text_out.scale[n], scratch.found, scratch.normed, threads)
        norm(scratch.normed, layers.text_branch_norm[n], scratch.normed)
        x += scratch.normed
        norm(x, layers.glu_norm[n], scratch.normed)
        gated_dense(layers.gate, layers.gated, n, scratch.normed, scratch.hidden, threads)
        norm(scratch.hidden, layers.hidden_norm[n], scratch.hidden)
        dense(layers.glu_out.weight[n], layers.glu_out.scale[n], scratch.hidden, scratch.normed, threads)
        x += scratch.normed

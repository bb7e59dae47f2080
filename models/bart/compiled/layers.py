"""All layers of a token step in one call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from models.bart.compiled.arithmetic import gelu, norm, rounded
from models.bart.compiled.attention import attend
from models.bart.compiled.compiling import Array, compiled, compiled_for_threads
from models.bart.compiled.products import dense


class Matrices(NamedTuple):
    """Weights of N layers, and what each output is multiplied with, float32 [N, outputs].

    [N, outputs, inputs] float32, bfloat16 or int8, or as `panels.arranged` or `tiles.arranged` has them.
    """

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
    glu_in: Matrices  # D to twice the hidden size, each rounded up: what is activated, and what it is multiplied with
    hidden_norm: Array
    glu_out: Matrices  # hidden, rounded up with zeros, to D


class Attended(NamedTuple):
    """Keys and values [N, groups, heads, positions, head size], float32 or bfloat16; each row's group, int64 [R]."""

    keys: Array
    values: Array
    group: Array


class Scratch(NamedTuple):
    """The buffers between the operations of a step, [R rounded up, ...].

    The inputs of products are float32, for a matrix unit bfloat16; rows and columns past the real ones stay zero.
    """

    normed: Array  # [R, D], for a product
    found: Array  # [R, D], for a product
    hidden: Array  # [R, hidden rounded up], for a product
    projected: Array  # float32 [R, 3 D]
    branch: Array  # float32 [R, D]
    gated: Array  # float32 [R, twice the hidden size, each rounded up]
    scores: Array  # float32 [threads, positions]
    room: Array  # uint8 [64], how the matrix unit is set up; else uint32, for packed rows


@compiled_for_threads
def _norm_all(x: Array, scale_bias: Array, out: Array, threads: int) -> None:
    for thread in prange(threads):
        for row in range(len(x) * thread // threads, len(x) * (thread + 1) // threads):
            norm(x[row], scale_bias, out[row])


@compiled_for_threads
def _add_normed(x: Array, branch: Array, closing: Array, opening: Array, out: Array, threads: int) -> None:
    """Add the norm of `branch`, which it replaces, to `x`; the norm of the sum -> `out`. All [R, D]."""
    for thread in prange(threads):
        for row in range(len(x) * thread // threads, len(x) * (thread + 1) // threads):
            norm(branch[row], closing, branch[row])
            x[row] += branch[row]
            norm(x[row], opening, out[row])


@compiled_for_threads
def _gate(gated: Array, rows: int, scale_bias: Array, out: Array, threads: int) -> None:
    """The norm of gelu of the first half of `gated` times the second -> the first columns of `out`."""
    half = gated.shape[1] // 2
    for thread in prange(threads):
        for row in range(rows * thread // threads, rows * (thread + 1) // threads):
            left, right = gated[row, :half], gated[row, half:]
            for i in range(half):
                left[i] = gelu(left[i]) * right[i]
            norm(left, scale_bias, out[row])


@compiled_for_threads
def _keep(projected: Array, keys: Array, values: Array, position: int, threads: int) -> None:
    """The second and third part of `projected` [R, 3 D] -> `position` in the caches [R, heads, positions, size]."""
    rows, heads, _, size = keys.shape
    for thread in prange(threads):
        for row in range(rows * thread // threads, rows * (thread + 1) // threads):
            for head in range(heads):
                for i in range(size):
                    at = (heads + head) * size + i
                    keys[row, head, position, i] = rounded(projected[row, at], keys)
                    values[row, head, position, i] = rounded(projected[row, heads * size + at], values)


@compiled
def run_layers(
    parts: tuple[int, ...],
    x: Array,
    position: int,
    layers: Layers,
    final_norm: Array,
    own: Attended,
    text: Attended,
    pieces: Array,
    scratch: Scratch,
    threads: int,
) -> None:
    """Add all layers' branches to `x` float32 [R, D], for the code at `position`, then the last norm, in place.

    `pieces` [R]: the length of each row's caption; `parts`: as many numbers as vectors make a head.
    """
    s = scratch
    filled = np.full(len(x), position + 1)
    for n in range(len(layers.own_norm)):
        _norm_all(x, layers.own_norm[n], s.normed, threads)
        dense(layers.own_in.weight[n], layers.own_in.scale[n], s.normed, s.projected, s.room, threads)
        _keep(s.projected, own.keys[n], own.values[n], position, threads)
        attend(parts, s.projected, own.keys[n], own.values[n], own.group, filled, s.scores, s.found, threads)
        dense(layers.own_out.weight[n], layers.own_out.scale[n], s.found, s.branch, s.room, threads)
        _add_normed(x, s.branch, layers.own_branch_norm[n], layers.text_norm[n], s.normed, threads)
        dense(layers.text_in.weight[n], layers.text_in.scale[n], s.normed, s.projected, s.room, threads)
        attend(parts, s.projected, text.keys[n], text.values[n], text.group, pieces, s.scores, s.found, threads)
        dense(layers.text_out.weight[n], layers.text_out.scale[n], s.found, s.branch, s.room, threads)
        _add_normed(x, s.branch, layers.text_branch_norm[n], layers.glu_norm[n], s.normed, threads)
        dense(layers.glu_in.weight[n], layers.glu_in.scale[n], s.normed, s.gated, s.room, threads)
        _gate(s.gated, len(x), layers.hidden_norm[n], s.hidden, threads)
        dense(layers.glu_out.weight[n], layers.glu_out.scale[n], s.hidden, s.branch, s.room, threads)
        x += s.branch[: len(x)]
    _norm_all(x, final_norm, x, threads)

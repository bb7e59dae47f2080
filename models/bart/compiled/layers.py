"""All layers of a token step in one call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.bart.compiled.arithmetic import gelu, norm, rounded
from models.bart.compiled.attention import attend
from models.bart.compiled.compiling import compiled
from models.bart.compiled.products import dense
from models.machine_code import Array
from models.team import NONE, Team, member, take


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
    room: Array  # uint8 [64], how the matrix unit is set up; else uint32, for packed rows


@compiled
def _norm_all(x: Array, scale_bias: Array, out: Array, team: Team) -> None:
    row = take(team, len(x), NONE)
    while row != NONE:
        norm(x[row], scale_bias, out[row])
        row = take(team, len(x), row)


@compiled
def _add(x: Array, branch: Array, opening: Array, out: Array, team: Team) -> None:
    """Add `branch` to `x`; the norm of the sum -> `out`. All [R, D]."""
    row = take(team, len(x), NONE)
    while row != NONE:
        x[row] += branch[row]
        norm(x[row], opening, out[row])
        row = take(team, len(x), row)


@compiled
def _add_normed(x: Array, branch: Array, closing: Array, opening: Array, out: Array, team: Team) -> None:
    """Add the norm of `branch`, which it replaces, to `x`; the norm of the sum -> `out`. All [R, D]."""
    row = take(team, len(x), NONE)
    while row != NONE:
        norm(branch[row], closing, branch[row])
        x[row] += branch[row]
        norm(x[row], opening, out[row])
        row = take(team, len(x), row)


@compiled
def _gate(gated: Array, rows: int, scale_bias: Array, out: Array, team: Team) -> None:
    """The norm of gelu of the first half of `gated` times the second -> the first columns of `out`."""
    half = gated.shape[1] // 2
    row = take(team, rows, NONE)
    while row != NONE:
        left, right = gated[row, :half], gated[row, half:]
        for i in range(half):
            left[i] = gelu(left[i]) * right[i]
        norm(left, scale_bias, out[row])
        row = take(team, rows, row)


@compiled
def _keep(projected: Array, keys: Array, values: Array, position: int, team: Team) -> None:
    """The second and third part of `projected` [R, 3 D] -> `position` in the caches [R, heads, positions, size]."""
    rows, heads, _, size = keys.shape
    row = take(team, rows, NONE)
    while row != NONE:
        for head in range(heads):
            for i in range(size):
                at = (heads + head) * size + i
                keys[row, head, position, i] = rounded(projected[row, at], keys)
                values[row, head, position, i] = rounded(projected[row, heads * size + at], values)
        row = take(team, rows, row)


def turns(layers: int) -> int:
    """Of `run_layers`, at most."""
    return 19 * layers + 1


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
    board: Array,
    number: int,
) -> int:
    """Add all layers' branches to `x` float32 [R, D], for the code at `position`, then the last norm, in place.

    `pieces` [R]: the length of each row's caption; `parts`: as many numbers as vectors make a head. For `Threads.run`;
    -> the number of turns.
    """
    s, team, count = scratch, member(board, number), len(layers.own_norm)
    filled = np.full(len(x), position + 1)
    _norm_all(x, layers.own_norm[0], s.normed, team)
    for n in range(count):
        dense(layers.own_in.weight[n], layers.own_in.scale[n], s.normed, s.projected, s.room, team)
        _keep(s.projected, own.keys[n], own.values[n], position, team)
        attend(parts, s.projected, own.keys[n], own.values[n], own.group, filled, s.found, team)
        dense(layers.own_out.weight[n], layers.own_out.scale[n], s.found, s.branch, s.room, team)
        _add_normed(x, s.branch, layers.own_branch_norm[n], layers.text_norm[n], s.normed, team)
        dense(layers.text_in.weight[n], layers.text_in.scale[n], s.normed, s.projected, s.room, team)
        attend(parts, s.projected, text.keys[n], text.values[n], text.group, pieces, s.found, team)
        dense(layers.text_out.weight[n], layers.text_out.scale[n], s.found, s.branch, s.room, team)
        _add_normed(x, s.branch, layers.text_branch_norm[n], layers.glu_norm[n], s.normed, team)
        dense(layers.glu_in.weight[n], layers.glu_in.scale[n], s.normed, s.gated, s.room, team)
        _gate(s.gated, len(x), layers.hidden_norm[n], s.hidden, team)
        dense(layers.glu_out.weight[n], layers.glu_out.scale[n], s.hidden, s.branch, s.room, team)
        if n + 1 < count:
            _add(x, s.branch, layers.own_norm[n + 1], s.normed, team)
        else:
            _add(x, s.branch, final_norm, x, team)
    return team.turn[0]

"""Products of any number of rows without a matrix unit: each weight that is loaded is used for several rows.

Weights lie in panels of 32 outputs, one input after the other, so that they are read in order. A block of rows has its
sums in registers, one output a lane, and each row's input is spread over the lanes. Each sum runs over the inputs from
the first to the last, so it depends neither on how rows are cut into blocks nor on the width of the registers.

Two forms. Weights of float32, bfloat16 or int8 become float32 as they are loaded, and rows are float32. With a unit for
dot products of bytes, int8 weights stay bytes: the inputs of a row are rounded to 16 bits of its largest, of which the
upper and the lower eight are multiplied like two rows, and sums are whole numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from models.bart.compiled import LANES
from models.bart.compiled.arithmetic import bits, of_bits
from models.bart.compiled.compiling import compiled
from models.bart.compiled.units import DOTS_OF_BYTES, WIDE, has
from models.bart.compiled.vectors import (
    FLAG,
    SIZE,
    VECTOR,
    Loop,
    address_of,
    call,
    load,
    multiply_add,
    prefetch,
    spread,
)
from models.machine_code import Array
from models.team import NONE, Team, parts_of, take

PANEL = 2 * LANES  # outputs
AHEAD = 4096  # bytes between the weights that are read and those that are prefetched
FOUR = 4  # inputs of a dot product of bytes
NOTES = 3  # words before the packed inputs, for each row: its scale, and what is taken from its two sums
LEVELS = np.float32(127 << 8)  # a row's largest input as a whole number: its upper eight bits are at most 127
TINY = np.float32(2.0**-100)  # the scale of rows that are nothing
INFINITE = np.int32(0x7F800000)  # these bits and larger ones are no number
WHOLE = ir.VectorType(FLAG, LANES)
MOST_TOGETHER = 12 if has(WIDE) else 3  # packed rows whose sums fit into registers; what is computed is the same


def multiplies_bytes() -> bool:
    """Whether int8 weights stay bytes."""
    return has(DOTS_OF_BYTES)


def room(rows: int, inputs: int) -> np.ndarray:
    """uint32: a buffer for packed rows."""
    return np.zeros(room_size(rows, inputs), np.uint32)


def room_size(rows: int, inputs: int) -> int:
    """With rows that fill up the last block."""
    return (rows + MOST_TOGETHER) * (NOTES + inputs)


def arranged(weight: Tensor) -> Tensor:
    """[O, I] -> [O / 32, I, 32], outputs rounded up with zeros; int8 for dot products of bytes -> uint8
    [O / 32, I / 4, 32, 4], each value more by 128."""
    padded = torch.nn.functional.pad(weight, (0, 0, 0, -len(weight) % PANEL))
    panels = padded.view(-1, PANEL, weight.shape[1])
    if weight.dtype != torch.int8 or not multiplies_bytes():
        return panels.transpose(1, 2).contiguous()
    fours = panels.view(-1, PANEL, weight.shape[1] // FOUR, FOUR).transpose(1, 2)
    return (fours.to(torch.int16) + 128).to(torch.uint8).contiguous()


@intrinsic
def _multiply(
    context: Any, together: Any, packed: Any, first: Any, weights: Any, panel: Any, steps: Any, out: Any
) -> Any:
    """As many packed rows, from `first` on, times `steps` of a panel -> the first [together, 32] of uint32 `out`.

    There they are as the lanes hold them: the bits of float32, or whole numbers.
    """
    whole = weights.dtype == types.uint8
    kind = WHOLE if whole else VECTOR
    width = 4 if whole else weights.dtype.bitwidth // 8
    counts = range(2, MOST_TOGETHER + 1, 2) if whole else range(1, MOST_TOGETHER + 1)

    def sums(builder: Any, rows: int, steps: Any, inputs: Any, source: Any) -> list[Any]:
        nothing = ir.Constant(kind, [0] * LANES if whole else [0.0] * LANES)
        with Loop(builder, steps, [nothing] * (2 * rows)) as loop:
            here = builder.gep(source, [builder.mul(loop.number, SIZE(PANEL * width))])
            prefetch(builder, here, AHEAD, AHEAD + max(64, PANEL * width))
            loaded = [_weights(builder, here, width, n, whole) for n in range(2)]
            at = builder.gep(inputs, [builder.mul(loop.number, SIZE(4 * rows))])
            found = []
            for row in range(rows):
                pointer = builder.bitcast(builder.gep(at, [SIZE(4 * row)]), kind.element.as_pointer())
                value = spread(builder, builder.load(pointer, align=4))
                found += [_added(builder, loop.values[2 * row + n], loaded[n], value) for n in range(2)]
            loop.keep(found)
        return loop.last

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, source = (address_of(context, builder, signature, arguments, n) for n in (1, 3))
        target = address_of(context, builder, signature, arguments, 6, SIZE(0))
        end = builder.append_basic_block("multiplied")
        chosen = builder.switch(arguments[0], end)
        for rows in counts:
            case = builder.append_basic_block(f"rows{rows}")
            chosen.add_case(SIZE(rows), case)
            builder.position_at_end(case)
            for number, vector in enumerate(sums(builder, rows, arguments[5], inputs, source)):
                pointer = builder.gep(target, [SIZE(4 * LANES * number)])
                builder.store(vector, builder.bitcast(pointer, kind.as_pointer()), align=4)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, packed, size, weights, size, size, out), build


def _weights(builder: Any, address: Any, width: int, number: int, whole: bool) -> Any:
    """Vector `number` of a step's weights: float32, or four bytes a lane."""
    if not whole:
        return load(builder, address, width, SIZE(number))
    pointer = builder.gep(address, [SIZE(4 * LANES * number)])
    return builder.load(builder.bitcast(pointer, WHOLE.as_pointer()), align=4)


def _added(builder: Any, sums: Any, weights: Any, values: Any) -> Any:
    if sums.type == VECTOR:
        return multiply_add(builder, weights, values, sums)
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", WHOLE, sums, weights, values)


@compiled
def _pack_singles(row: Array, block: int, out: Array) -> None:
    """The bits of float32 [I] -> every `block`-th of `out`."""
    for i in range(len(row)):
        out[i * block] = bits(row[i])


@compiled
def _pack_bytes(row: Array, block: int, notes: Array, out: Array) -> None:
    """float32 [I] as whole numbers -> in every `block`-th pair of `out`, four upper bytes and four lower ones.

    -> `notes` [3]: the bits of what a whole number stands for, and what both sums have too much since weights are more
    by 128. With an input that is no number, that is none.
    """
    inputs = len(row)
    largest = np.int32(0)
    for i in range(inputs):
        largest = max(largest, np.int32(bits(row[i]) & np.uint32(0x7FFFFFFF)))
    is_number = largest < INFINITE
    most = max(of_bits(largest), TINY) if is_number else np.float32(np.nan)
    factor = LEVELS / most if is_number else np.float32(0)
    whole, upper, lower = np.empty(inputs, np.int32), np.empty(inputs, np.int8), np.empty(inputs, np.int8)
    for i in range(inputs):
        value = row[i] * factor if is_number else np.float32(0)
        whole[i] = np.int32(np.floor(value + np.float32(0.5)))
    uppers = lowers = np.int32(0)
    for i in range(inputs):
        high = np.int32(np.int32(whole[i] + np.int32(128)) >> np.int32(8))
        low = np.int32(whole[i] - np.int32(high << np.int32(8)))
        uppers, lowers = np.int32(uppers + high), np.int32(lowers + low)
        upper[i], lower[i] = high, low
    above, below = upper.view(np.uint32), lower.view(np.uint32)
    for i in range(inputs // FOUR):
        out[2 * block * i], out[2 * block * i + 1] = above[i], below[i]
    notes[0] = bits(most / LEVELS)
    notes[1], notes[2] = np.uint32(uppers << np.int32(7)), np.uint32(lowers << np.int32(7))


@compiled
def _pack(weight: Array, x: Array, block: int, room: Array, team: Team) -> None:
    """Rows of `x` [R, I] -> their notes and, behind those of all rows, blocks of packed inputs."""
    count, steps = len(x), weight.shape[1]
    row = take(team, count, NONE)
    while row != NONE:
        if weight.ndim == 4:
            at = NOTES * count + 2 * (row // block * block * steps + row % block)
            _pack_bytes(x[row], block, room[NOTES * row :], room[at:])
        else:
            _pack_singles(x[row], block, room[NOTES * count + row // block * block * steps + row % block :])
        row = take(team, count, row)


@compiled
def _unpack(weight: Array, scale: Array, o: int, found: Array, first: int, room: Array, row: int, out: Array) -> None:
    """The sums of a row in the panel of output `o`, as `_multiply` has them from `first` on, times `scale` -> `out`.

    Views of parts of arrays would be counted with each row, which takes a sixth of the time of a product.
    """
    count = min(PANEL, len(scale) - o)
    if weight.ndim == 4:
        unit = of_bits(np.int32(room[NOTES * row]))
        above, below = np.int32(room[NOTES * row + 1]), np.int32(room[NOTES * row + 2])
        for i in range(count):
            upper = np.int32(np.int32(found[first + i]) - above)
            lower = np.int32(np.int32(found[first + PANEL + i]) - below)
            out[row, o + i] = (np.float32(upper) * np.float32(256) + np.float32(lower)) * unit * scale[o + i]
    else:
        for i in range(count):
            out[row, o + i] = of_bits(np.int32(found[first + i])) * scale[o + i]


@compiled
def _some_panels(
    weight: Array, scale: Array, count: int, block: int, room: Array, out: Array, begin: int, end: int
) -> None:
    steps, size, weights = weight.shape[1], weight[0].size, weight.reshape(-1)
    halves = 2 if weight.ndim == 4 else 1  # packed rows of a row
    found = np.empty(MOST_TOGETHER * PANEL, np.uint32)
    for panel in range(begin, end):
        for first in range(0, count, block):
            at = NOTES * count + halves * first * steps
            _multiply(halves * block, room, at, weights, panel * size, steps, found)
            for row in range(first, min(first + block, count)):
                _unpack(weight, scale, panel * PANEL, found, halves * (row - first) * PANEL, room, row, out)


@compiled
def dense_of_panels(weight: Array, scale: Array, x: Array, out: Array, room: Array, team: Team) -> None:
    """`arranged` weights times float32 `x` [R, I] -> float32 `out` [R, O or more]; `room` is as above."""
    count, panels = len(x), len(weight)
    most = MOST_TOGETHER // (2 if weight.ndim == 4 else 1)
    block = -(-count // -(-count // most))  # equal shares
    _pack(weight, x, block, room, team)
    parts = parts_of(team, panels)
    part = take(team, parts, NONE)
    while part != NONE:
        _some_panels(weight, scale, count, block, room, out, panels * part // parts, panels * (part + 1) // parts)
        part = take(team, parts, part)

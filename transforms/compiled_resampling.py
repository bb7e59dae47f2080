"""Pillow's `Image.resize` of an RGB image as machine code: the same bytes, in a quarter of the time.

Pillow weighs the pixels around each new one along the rows, rounds to 8 bits, and does the same along the columns;
weights are integers, with 22 bits after the point. Sums of integers are the same in any order, so these run over many
values at once, on every processor alike. `transforms/resampling.py` is the way in.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.machine_code import compiled

Array = Any  # numpy arrays

BOX, BICUBIC, LANCZOS = 0, 1, 2
BITS = 22  # of a weight after the point
HALF = 1 << (BITS - 1)
CHANNELS = 4  # of a pixel as Pillow keeps it; the last one is not used
ROWS = 16  # which are weighed together
VALUES = CHANNELS * ROWS  # summed at once, in registers
VECTOR = 16

BYTE, INT, SIZE = ir.IntType(8), ir.IntType(32), ir.IntType(64)
BYTES, INTS = ir.VectorType(BYTE, VECTOR), ir.VectorType(INT, VECTOR)


@intrinsic
def _weigh(_: Any, pixels: Any, first: Any, apart: Any, weights: Any, count: Any, made: Any, place: Any) -> Any:
    """made[place :][:VALUES] = the sum of weights[k] * pixels[first + k * apart :][:VALUES] for k below `count`."""
    signature = types.void(pixels, types.int64, types.int64, weights, types.int64, made, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, arguments[number]).data

        def part(pointer: Any, number: int) -> Any:
            return builder.bitcast(builder.gep(pointer, [SIZE(number * VECTOR)]), BYTES.as_pointer())

        def everywhere(value: int) -> Any:
            return ir.Constant(INTS, [value] * VECTOR)

        start, weights, count = builder.gep(data(0), [arguments[1]]), data(3), arguments[4]
        before, body, after = builder.block, *(builder.append_basic_block(name) for name in ("body", "after"))
        builder.branch(body)
        builder.position_at_end(body)
        number, pointer = builder.phi(SIZE), builder.phi(start.type)
        sums = [builder.phi(INTS) for _ in range(VALUES // VECTOR)]
        undefined = ir.Constant(INTS, ir.Undefined)
        weight = builder.insert_element(undefined, builder.load(builder.gep(weights, [number])), INT(0))
        weight = builder.shuffle_vector(weight, undefined, everywhere(0))
        grown = []
        for i, held in enumerate(sums):
            values = builder.zext(builder.load(part(pointer, i), align=1), INTS)
            grown.append(builder.add(held, builder.mul(values, weight)))
            held.add_incoming(everywhere(HALF), before)
            held.add_incoming(grown[i], body)
        following = builder.add(number, SIZE(1))
        number.add_incoming(SIZE(0), before)
        number.add_incoming(following, body)
        pointer.add_incoming(start, before)
        pointer.add_incoming(builder.gep(pointer, [arguments[2]]), body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, after)
        builder.position_at_end(after)
        goal = builder.gep(data(5), [arguments[6]])
        for i, total in enumerate(grown):
            level = builder.ashr(total, everywhere(BITS))
            for sign, bound in (("<", everywhere(0)), (">", everywhere(255))):
                level = builder.select(builder.icmp_signed(sign, level, bound), bound, level)
            builder.store(builder.trunc(level, BYTES), part(goal, i), align=1)
        return context.get_dummy_value()

    return signature, generate


@numba.njit(nogil=True, error_model="numpy")
def _curve(x: float, kind: int) -> float:
    if kind == LANCZOS:
        if x == 0.0:
            return 1.0
        if not -3.0 <= x < 3.0:
            return 0.0
        wide, narrow = x * math.pi, x / 3 * math.pi
        return math.sin(wide) / wide * (math.sin(narrow) / narrow)
    if kind == BOX:
        return 1.0 if -0.5 < x <= 0.5 else 0.0
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


@numba.njit(nogil=True, error_model="numpy")
def _weights(side: int, low: float, high: float, count: int, kind: int) -> tuple[Array, Array, Array]:
    """For each of `count` new pixels between `low` and `high` of a side: its first old one, how many, their weights."""
    scale = float(high - low) / count  # a difference of float32
    wider = max(scale, 1.0)
    reach = (3.0 if kind == LANCZOS else 2.0 if kind == BICUBIC else 0.5) * wider
    longest = math.ceil(reach) * 2 + 1
    first, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    weights, exact = np.zeros((count, longest), np.int32), np.empty(longest, np.float64)
    shrink = 1.0 / wider
    for i in range(count):
        middle = low + (i + 0.5) * scale
        start = max(0, int(middle - reach + 0.5))
        length = min(side, int(middle + reach + 0.5)) - start
        total = 0.0
        for k in range(length):
            exact[k] = _curve((k + start - middle + 0.5) * shrink, kind)
            total += exact[k]
        for k in range(length):
            share = exact[k] / total if total != 0.0 else exact[k]
            weights[i, k] = int(share * (1 << BITS) + (-0.5 if share < 0 else 0.5))
        first[i], lengths[i] = start, length
    return first, lengths, weights


def _resample(pixels: Array, box: Array, kind: int, made: Array) -> None:
    """The part `box` (float32: left, top, right, bottom) of uint32 [H, W], as Pillow keeps pixels, -> `made`, uint8
    [h, w, 3]. As in Pillow, pixels beside the box count where the curve reaches them."""
    (height, width), (down, across) = pixels.shape, made.shape[:2]
    columns, widths, of_columns = _weights(width, box[0], box[2], across, kind)
    rows, heights, of_rows = _weights(height, box[1], box[3], down, kind)
    left, right = columns[0], columns[-1] + widths[-1]
    top, bottom = rows[0], rows[-1] + heights[-1]
    line = (across * CHANNELS + VALUES - 1) // VALUES * VALUES
    narrow = np.empty(((bottom - top + ROWS - 1) // ROWS * ROWS, line), np.uint8)
    narrow_pixels, narrow_bytes = narrow.view(np.uint32), narrow.reshape(-1)
    group, one = np.zeros((right - left) * VALUES, np.uint8), np.empty(VALUES, np.uint8)
    group_pixels, one_pixels = group.view(np.uint32), one.view(np.uint32)
    for start in range(top, bottom, ROWS):
        count = min(ROWS, bottom - start)
        for x in range(right - left):  # turned, so that values of several rows lie side by side
            if count == ROWS:
                for r in range(ROWS):
                    group_pixels[x * ROWS + r] = pixels[start + r, left + x]
            else:
                for r in range(count):
                    group_pixels[x * ROWS + r] = pixels[start + r, left + x]
        for x in range(across):
            _weigh(group, (columns[x] - left) * VALUES, VALUES, of_columns[x], widths[x], one, 0)
            for r in range(ROWS):
                narrow_pixels[start - top + r, x] = one_pixels[r]
    short = np.empty(line, np.uint8)
    for y in range(down):
        for at in range(0, line, VALUES):
            _weigh(narrow_bytes, (rows[y] - top) * line + at, line, of_rows[y], heights[y], short, at)
        row = made[y]
        for x in range(across):
            for channel in range(3):
                row[x, channel] = short[x * CHANNELS + channel]


resample = compiled(_resample)

"""Pillow's `Image.resize` of an RGB image as machine code: the same bytes, in a fifth of the time.

Pillow weighs the pixels around each new one along the rows, rounds to 8 bits, and does the same along the columns;
weights are integers, with 22 bits after the point. Sums of integers are the same in any order, so these run over many
values at once, on every processor alike. `transforms/resampling.py` is the way in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
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
LOW = 11  # bits of a weight that are multiplied apart: both parts of it then fit into 16 bits
CHANNELS = 4  # of a pixel as Pillow keeps it; the last one is not used
ROWS = 16  # which are weighed together
VALUES = CHANNELS * ROWS  # summed at once, in registers
VECTOR = 16
KEPT = 32  # weights of sides that were last resized

BYTE, SHORT, INT, SIZE = (ir.IntType(bits) for bits in (8, 16, 32, 64))
BYTES, INTS = ir.VectorType(BYTE, VECTOR), ir.VectorType(INT, VECTOR)
SHORT_PAIRS, INT_PAIRS = ir.VectorType(SHORT, 2 * VECTOR), ir.VectorType(INT, 2 * VECTOR)


@intrinsic
def _weigh(_: Any, pixels: Any, first: Any, apart: Any, weights: Any, pairs: Any, made: Any, place: Any) -> Any:
    """made[place :][:VALUES] = the sum of weight k * pixels[first + k * apart :][:VALUES] for k below 2 * `pairs`.

    Two products of 16 bits are added as they are made, for which processors have one instruction.
    """
    signature = types.void(pixels, types.int64, types.int64, weights, types.int64, made, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, arguments[number]).data

        def part(pointer: Any, number: int) -> Any:
            return builder.bitcast(builder.gep(pointer, [SIZE(number * VECTOR)]), BYTES.as_pointer())

        def everywhere(value: int) -> Any:
            return ir.Constant(INTS, [value] * VECTOR)

        def chosen(one: Any, other: Any, numbers: Iterable[int]) -> Any:
            indices = [*numbers]
            return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(INT, len(indices)), indices))

        def weight(number: Any) -> Any:
            undefined = ir.Constant(INTS, ir.Undefined)
            pair = builder.insert_element(undefined, builder.load(builder.gep(weights, [number])), INT(0))
            pair = builder.bitcast(chosen(pair, undefined, [0] * VECTOR), SHORT_PAIRS)
            return builder.sext(pair, INT_PAIRS)

        start, step, weights, pairs = builder.gep(data(0), [arguments[1]]), arguments[2], data(3), arguments[4]
        before, body, after = builder.block, *(builder.append_basic_block(name) for name in ("body", "after"))
        builder.branch(body)
        builder.position_at_end(body)
        number, pointer = builder.phi(SIZE), builder.phi(start.type)
        sums = [[builder.phi(INTS) for _ in range(2)] for _ in range(VALUES // VECTOR)]
        second = builder.gep(pointer, [step])
        high = weight(builder.mul(number, SIZE(2)))
        low = weight(builder.add(builder.mul(number, SIZE(2)), SIZE(1)))
        grown: list[list[Any]] = []
        for i, held in enumerate(sums):
            one, other = (builder.load(part(line, i), align=1) for line in (pointer, second))
            mixed = chosen(one, other, (k // 2 + k % 2 * VECTOR for k in range(2 * VECTOR)))
            values = builder.sext(builder.zext(mixed, SHORT_PAIRS), INT_PAIRS)
            grown.append([])
            for old, weighed in zip(held, (high, low), strict=True):
                products = builder.mul(values, weighed)
                halves = (chosen(products, products, range(odd, 2 * VECTOR, 2)) for odd in (0, 1))
                grown[i].append(builder.add(old, builder.add(*halves)))
            for old, new, begin in zip(held, grown[i], (0, HALF), strict=True):
                old.add_incoming(everywhere(begin), before)
                old.add_incoming(new, body)
        following = builder.add(number, SIZE(1))
        number.add_incoming(SIZE(0), before)
        number.add_incoming(following, body)
        pointer.add_incoming(start, before)
        pointer.add_incoming(builder.gep(second, [step]), body)
        builder.cbranch(builder.icmp_signed("<", following, pairs), body, after)
        builder.position_at_end(after)
        goal = builder.gep(data(5), [arguments[6]])
        for i, (high, low) in enumerate(grown):
            level = builder.ashr(builder.add(builder.shl(high, everywhere(LOW)), low), everywhere(BITS))
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


def _weights(side: int, low: float, high: float, count: int, kind: int) -> tuple[Array, Array, Array]:
    """For each of `count` new pixels between `low` and `high` of a side: its first old one, how many pairs, and their
    weights: of each pair the high parts in 16 bits each, then the low parts."""
    scale = float(high - low) / count  # a difference of float32
    wider = max(scale, 1.0)
    reach = (3.0 if kind == LANCZOS else 2.0 if kind == BICUBIC else 0.5) * wider
    longest = math.ceil(reach) * 2 + 1
    first, pairs = np.empty(count, np.int64), np.empty(count, np.int64)
    weights, exact = np.zeros((count, longest + 1), np.int32), np.empty(longest, np.float64)
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
            weight = int(share * (1 << BITS) + (-0.5 if share < 0 else 0.5))
            place, shift = k // 2 * 2, k % 2 * 16
            weights[i, place] |= ((weight >> LOW) & 0xFFFF) << shift
            weights[i, place + 1] |= (weight & ((1 << LOW) - 1)) << shift
        first[i], pairs[i] = start, (length + 1) // 2
    return first, pairs, weights


@lru_cache(KEPT)
def _weights_of(side: int, low: float, high: float, count: int, kind: int) -> tuple[Array, Array, Array]:
    made: tuple[Array, Array, Array] = _compiled_weights(side, np.float32(low), np.float32(high), count, kind)
    return made


def _resample(
    pixels: Array,
    columns: Array,
    widths: Array,
    of_columns: Array,
    rows: Array,
    heights: Array,
    of_rows: Array,
    made: Array,
) -> None:
    """uint32 [H, W] -> `made`, uint8 [h, w, 3], by what `_weights` gives for each side."""
    (height, width), down, across = pixels.shape, made.shape[0], made.shape[1]
    left, right = columns[0], min(width, columns[-1] + 2 * widths[-1])
    top, bottom = rows[0], min(height, rows[-1] + 2 * heights[-1])
    line = (across * CHANNELS + VALUES - 1) // VALUES * VALUES
    narrow = np.empty(((bottom - top) // ROWS * ROWS + ROWS, line), np.uint8)  # a row more for a pair that lacks one
    narrow_pixels, narrow_values = narrow.view(np.uint32), narrow.reshape(-1)
    group, one = np.zeros((right - left + 1) * VALUES, np.uint8), np.empty(VALUES, np.uint8)
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
            _weigh(narrow_values, (rows[y] - top) * line + at, line, of_rows[y], heights[y], short, at)
        for x in range(across):
            made[y, x, 0] = short[CHANNELS * x]
            made[y, x, 1] = short[CHANNELS * x + 1]
            made[y, x, 2] = short[CHANNELS * x + 2]


_compiled_weights, _compiled_resample = compiled(_weights), compiled(_resample)


def resample(pixels: Array, box: tuple[float, float, float, float], kind: int, made: Array) -> None:
    """The part `box` (left, top, right, bottom) of uint32 [H, W], as Pillow keeps pixels, -> `made`, uint8 [h, w, 3].
    As in Pillow, pixels beside the box count where the curve reaches them."""
    (height, width), down, across = pixels.shape, len(made), made.shape[1]
    columns = _weights_of(width, box[0], box[2], across, kind)
    _compiled_resample(pixels, *columns, *_weights_of(height, box[1], box[3], down, kind), made)

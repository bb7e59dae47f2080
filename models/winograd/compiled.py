"""The convolution of one image as machine code. No bit depends on the number of threads, nor on other tiles.

A thread takes a group of tiles at a time, so that its transformed inputs and outputs stay in the processor's caches.
No compiler option lets the compiler choose how sums are rounded, as in `models/bart/compiled`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.machine_code import Array, compiled
from models.team import NONE, SOURCE, member, parts_of, take
from models.threads import Threads
from models.winograd.algorithm import PANEL, POINTS, A, B

CHANNELS = 32  # transformed at once
ROWS = 6  # tiles whose products are kept in registers
SMALL_GROUP, GROUP = 2 * ROWS, 4 * ROWS  # tiles of a thread at a time
APART = 16  # values between the points of a group: at powers of two they would share lines of the cache

POINT_A, POINT_B = np.float32(A), np.float32(B)
SQUARE_A, SQUARE_B = np.float32(A * A), np.float32(B * B)
INVERSE_A, INVERSE_B, INVERSE_SQUARE_A = np.float32(1 / A), np.float32(1 / B), np.float32(1 / (A * A))
ZERO = np.float32(0)

SINGLE, SIZE, FLAG = ir.FloatType(), ir.IntType(64), ir.IntType(32)
VECTOR = ir.VectorType(SINGLE, PANEL // 2)


@intrinsic
def _products(
    _: Any, inputs: Any, first: Any, weights: Any, panel: Any, outputs: Any, place: Any, width: Any, out: Any
) -> Any:
    """outputs[place + r * out :][:PANEL] = inputs[first + r * width :][:width] @ weights[panel :] for ROWS of r."""
    signature = types.void(inputs, types.int64, weights, types.int64, outputs, types.int64, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def address(number: int) -> Any:
            array = context.make_array(signature.args[number])(context, builder, arguments[number])
            return builder.gep(array.data, [arguments[number + 1]])

        def vectors(pointer: Any) -> Any:
            return builder.bitcast(pointer, VECTOR.as_pointer())

        width, out = arguments[6], arguments[7]
        rows = [builder.gep(address(0), [builder.mul(SIZE(r), width)]) for r in range(ROWS)]
        panel = vectors(address(2))
        before, body, after = builder.block, *(builder.append_basic_block(name) for name in ("body", "after"))
        builder.branch(body)
        builder.position_at_end(body)
        number = builder.phi(SIZE)
        number.add_incoming(SIZE(0), before)
        sums = [[builder.phi(VECTOR) for _ in range(2)] for _ in range(ROWS)]
        halves = [
            builder.load(builder.gep(panel, [builder.add(builder.mul(number, SIZE(2)), SIZE(half))]), align=4)
            for half in range(2)
        ]
        name = f"llvm.fmuladd.v{VECTOR.count}f32"
        multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)
        undefined, zeros = ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(FLAG, VECTOR.count), [0] * 8)
        grown = []
        for r in range(ROWS):
            value = builder.load(builder.gep(rows[r], [number]), align=4)
            spread = builder.shuffle_vector(builder.insert_element(undefined, value, FLAG(0)), undefined, zeros)
            grown.append([builder.call(multiply_add, [spread, halves[half], sums[r][half]]) for half in range(2)])
        following = builder.add(number, SIZE(1))
        number.add_incoming(following, body)
        for r in range(ROWS):
            for half in range(2):
                sums[r][half].add_incoming(ir.Constant(VECTOR, [0.0] * VECTOR.count), before)
                sums[r][half].add_incoming(grown[r][half], body)
        builder.cbranch(builder.icmp_signed("<", following, width), body, after)
        builder.position_at_end(after)
        for r in range(ROWS):
            place = vectors(builder.gep(address(4), [builder.mul(SIZE(r), out)]))
            for half in range(2):
                builder.store(grown[r][half], builder.gep(place, [SIZE(half)]), align=4)
        return context.get_dummy_value()

    return signature, generate


@numba.njit(nogil=True, error_model="numpy")
def _to_points(tile: Array, made: Array, line: int, step: int) -> None:
    """Six values of a tile, `step` apart, evaluated at the points, on each of six lines, which lie `line` apart."""
    for j in range(6):
        for c in range(CHANNELS):
            i = j * line + c
            d0, d1, d2 = tile[i], tile[i + step], tile[i + 2 * step]
            d3, d4, d5 = tile[i + 3 * step], tile[i + 4 * step], tile[i + 5 * step]
            even = d4 - SQUARE_B * d2
            odd = POINT_A * (d3 - SQUARE_B * d1)
            made[i + step] = even + odd
            made[i + 2 * step] = even - odd
            even = d4 - SQUARE_A * d2
            third = d3 - SQUARE_A * d1
            odd = POINT_B * third
            made[i + 3 * step] = even + odd
            made[i + 4 * step] = even - odd
            made[i] = even - SQUARE_B * (d2 - SQUARE_A * d0)
            made[i + 5 * step] = (d5 - SQUARE_A * d3) - SQUARE_B * third


@numba.njit(nogil=True, error_model="numpy")
def _from_points(values: Array, made: Array, line: int, step: int, lines: int) -> None:
    """Four outputs from the values at six points, on each of `lines`."""
    for j in range(lines):
        for c in range(CHANNELS):
            i = j * line + c
            m0, m1, m2 = values[i], values[i + step], values[i + 2 * step]
            m3, m4, m5 = values[i + 3 * step], values[i + 4 * step], values[i + 5 * step]
            sum_a, sum_b = m1 + m2, m3 + m4
            difference_a, difference_b = m1 - m2, m3 - m4
            made[i] = m0 + INVERSE_SQUARE_A * sum_a + INVERSE_B * sum_b
            made[i + step] = difference_b + INVERSE_A * difference_a
            made[i + 2 * step] = sum_a + POINT_B * sum_b
            made[i + 3 * step] = m5 + POINT_A * difference_a + SQUARE_B * difference_b


@numba.njit(nogil=True, error_model="numpy")
def _convolve_groups(image: Array, weights: Array, bias: Array, made: Array, group: int, begin: int, end: int) -> None:
    """The groups of tiles from `begin` to `end` of `_convolve_image`."""
    height, width, channels = image.shape
    outputs = made.shape[2]
    across = (width + 3) // 4
    count = across * ((height + 3) // 4)
    apart_in, apart_out = group * channels + APART, group * outputs + APART
    tile, other = np.empty(POINTS * CHANNELS, np.float32), np.empty(POINTS * CHANNELS, np.float32)
    inputs, products = np.empty(POINTS * apart_in, np.float32), np.empty(POINTS * apart_out, np.float32)
    for number in range(begin, end):
        first = number * group
        tiles = min(group, count - first)
        if tiles < group:
            inputs[:] = ZERO
        for t in range(tiles):
            top, left = 4 * ((first + t) // across) - 1, 4 * ((first + t) % across) - 1
            for channel in range(0, channels, CHANNELS):
                for i in range(6):
                    for j in range(6):
                        at = (i * 6 + j) * CHANNELS
                        if 0 <= top + i < height and 0 <= left + j < width:
                            pixel = image[top + i, left + j]
                            for c in range(CHANNELS):
                                tile[at + c] = pixel[channel + c]
                        else:
                            for c in range(CHANNELS):
                                tile[at + c] = ZERO
                _to_points(tile, other, CHANNELS, 6 * CHANNELS)
                _to_points(other, tile, 6 * CHANNELS, CHANNELS)
                for point in range(POINTS):
                    at = point * apart_in + t * channels + channel
                    for c in range(CHANNELS):
                        inputs[at + c] = tile[point * CHANNELS + c]
        for point in range(POINTS):
            for output in range(0, outputs, PANEL):
                panel = (point * outputs + output) * channels
                for t in range(0, group, ROWS):
                    place = point * apart_out + t * outputs + output
                    _products(
                        inputs, point * apart_in + t * channels, weights, panel, products, place, channels, outputs
                    )
        for t in range(tiles):
            top, left = 4 * ((first + t) // across), 4 * ((first + t) % across)
            for output in range(0, outputs, CHANNELS):
                for point in range(POINTS):
                    at = point * apart_out + t * outputs + output
                    for c in range(CHANNELS):
                        tile[point * CHANNELS + c] = products[at + c]
                _from_points(tile, other, CHANNELS, 6 * CHANNELS, 6)
                _from_points(other, tile, 6 * CHANNELS, CHANNELS, 4)
                for i in range(min(4, height - top)):
                    for j in range(min(4, width - left)):
                        pixel = made[top + i, left + j]
                        at = (i * 6 + j) * CHANNELS
                        for c in range(CHANNELS):
                            pixel[output + c] = tile[at + c] + bias[output + c]


@partial(compiled, read=SOURCE)
def _convolve_image(
    image: Array, weights: Array, bias: Array, made: Array, group: int, board: Array, number: int
) -> None:
    """image [H, W, C], weights as `transformed` gives them, flat, bias [O] -> made [H, W, O], with padding of 1.

    C and O are multiples of CHANNELS, `group` of ROWS. For `Threads.run`, in one turn.
    """
    tiles = ((image.shape[1] + 3) // 4) * ((image.shape[0] + 3) // 4)
    groups, team = (tiles + group - 1) // group, member(board, number)
    parts = parts_of(team, groups)
    part = take(team, parts, NONE)
    while part != NONE:
        _convolve_groups(image, weights, bias, made, group, groups * part // parts, groups * (part + 1) // parts)
        part = take(team, parts, part)


def convolve(image: Array, weights: Array, bias: Array, made: Array, threads: Threads, count: int) -> None:
    """See `_convolve_image`; scratch memory is below 5 MB for each of `count` threads with up to 256 channels."""
    small = image.shape[2] + made.shape[2] <= 256
    threads.run(_convolve_image, image, weights, bias, made, SMALL_GROUP if small else GROUP, turns=1, threads=count)

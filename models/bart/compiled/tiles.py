"""Products by a processor's matrix unit, Intel's AMX: 16 rows of 32 bfloat16 times 16 columns at a time."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numba import config, types
from numba.extending import intrinsic
from torch import Tensor

from models.bart.compiled import TURN
from models.bart.compiled.compiling import compiled
from models.bart.compiled.vectors import BYTE, SIZE, VOID, Loop, address_of, call, prefetch
from models.machine_code import Array
from models.team import NONE, Team, parts_of, take

TILE = 16  # rows, and outputs, of a tile
DEPTH = TURN  # inputs of a tile
TILE_BYTES = 1024
AHEAD = 8192  # bytes between the weights that are read and those that are prefetched
REQUEST, TILE_DATA, ARCH_PRCTL = 0x1023, 18, 158  # Linux hands the unit's registers to processes that ask for them


def usable() -> bool:
    """Whether this processor has the unit, this system lends it, and numba compiles for this very processor."""
    told = config.CPU_NAME is not None or config.CPU_FEATURES is not None
    if told or platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    features = binding.get_host_cpu_features()
    if not (features.get("amx-tile") and features.get("amx-bf16")):
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILE_DATA) == 0


def arranged(weight: Tensor) -> Tensor:
    """[O, I] -> bfloat16 [O / 16, I / 32, 16, 16, 2], outputs rounded up with zeros: pairs of inputs of 16 outputs."""
    padded = torch.nn.functional.pad(weight.to(torch.bfloat16), (0, 0, 0, -len(weight) % TILE))
    return padded.view(-1, TILE, weight.shape[1] // DEPTH, DEPTH // 2, 2).permute(0, 2, 3, 1, 4).contiguous()


def set_up() -> np.ndarray:
    """uint8 [64]: the setting for eight whole tiles."""
    setting = np.zeros(64, np.uint8)
    setting[0] = 1
    setting[16:32:2] = DEPTH * 2  # bytes of a row, each as two bytes
    setting[48:56] = TILE
    return setting


def _product_of(blocks: int) -> Any:
    """The product of `blocks` times 16 rows with a row of tiles of weights."""

    @intrinsic
    def product(
        context: Any, x: Any, first: Any, inputs: Any, weights: Any, tile: Any, out: Any, at: Any, width: Any
    ) -> Any:
        """Rows [16 blocks, inputs] from `first` on times tiles from `tile` on -> from `at` on, rows of `width`."""

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            row_bytes, out_bytes = builder.mul(arguments[2], SIZE(2)), builder.mul(arguments[7], SIZE(4))
            rows = address_of(context, builder, signature, arguments, 0)
            source = address_of(context, builder, signature, arguments, 3, arguments[4])
            target = address_of(context, builder, signature, arguments, 5)
            for n in range(blocks):
                call(builder, "llvm.x86.tilezero", VOID, BYTE(n))
            with Loop(builder, builder.sdiv(arguments[2], SIZE(DEPTH)), []) as loop:
                here = builder.gep(source, [builder.mul(loop.number, SIZE(TILE_BYTES))])
                prefetch(builder, here, AHEAD, AHEAD + TILE_BYTES)
                call(builder, "llvm.x86.tileloadd64", VOID, BYTE(7), here, SIZE(64))
                for n in range(blocks):
                    block = builder.add(builder.mul(row_bytes, SIZE(TILE * n)), builder.mul(loop.number, SIZE(64)))
                    pointer = builder.gep(rows, [block])
                    call(builder, "llvm.x86.tileloadd64", VOID, BYTE(4 + n % 2), pointer, row_bytes)
                    call(builder, "llvm.x86.tdpbf16ps", VOID, BYTE(n), BYTE(4 + n % 2), BYTE(7))
            for n in range(blocks):
                pointer = builder.gep(target, [builder.mul(out_bytes, SIZE(TILE * n))])
                call(builder, "llvm.x86.tilestored64", VOID, BYTE(n), pointer, out_bytes)
            return context.get_dummy_value()

        size = types.intp
        return types.void(x, size, size, weights, size, out, size, size), build

    return product


_product_1, _product_2, _product_3, _product_4 = (_product_of(blocks) for blocks in (1, 2, 3, 4))


@intrinsic
def _set_up_tiles(context: Any, tiles: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.ldtilecfg", VOID, address_of(context, builder, signature, arguments, 0, SIZE(0)))
        return context.get_dummy_value()

    return types.void(tiles), build


@intrinsic
def _release_tiles(context: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.tilerelease", VOID)
        return context.get_dummy_value()

    return types.void(), build


@compiled
def dense_of_tiles(weight: Array, x: Array, out: Array, tiles: Array, team: Team) -> None:
    """`arranged` weights times bfloat16 `x` [R, I], R a multiple of `TILE` -> float32 `out` [R, O or more]."""
    strips, depth = weight.shape[:2]
    inputs, width, size = x.shape[1], out.shape[1], depth * TILE_BYTES // 2
    weights, rows, found = weight.reshape(-1), x.reshape(-1), out.reshape(-1)
    blocks = len(x) // TILE
    parts = parts_of(team, strips)
    _set_up_tiles(tiles)
    part = take(team, parts, NONE)
    while part != NONE:
        for o in range(strips * part // parts, strips * (part + 1) // parts):
            for block in range(0, blocks, 4):
                first, at = block * TILE * inputs, block * TILE * width + o * TILE
                if blocks - block >= 4:
                    _product_4(rows, first, inputs, weights, o * size, found, at, width)
                elif blocks - block == 3:
                    _product_3(rows, first, inputs, weights, o * size, found, at, width)
                elif blocks - block == 2:
                    _product_2(rows, first, inputs, weights, o * size, found, at, width)
                else:
                    _product_1(rows, first, inputs, weights, o * size, found, at, width)
        part = take(team, parts, part)
    _release_tiles()

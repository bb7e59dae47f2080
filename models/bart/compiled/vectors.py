"""LLVM's vectors of float32: the operations in which the innermost loops are written."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from models.bart.compiled import LANES

VOID, SINGLE, SIZE, BYTE, FLAG = ir.VoidType(), ir.FloatType(), ir.IntType(64), ir.IntType(8), ir.IntType(32)
VECTOR = ir.VectorType(SINGLE, LANES)
ADDRESS = BYTE.as_pointer()


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """The result of LLVM's intrinsic function `name`."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def address_of(context: Any, builder: Any, signature: Any, arguments: Any, number: int, first: Any = None) -> Any:
    """The address of element `first` of array argument `number`; by default the next argument gives the element."""
    array = context.make_array(signature.args[number])(context, builder, arguments[number])
    pointer = builder.gep(array.data, [arguments[number + 1] if first is None else first])
    return builder.bitcast(pointer, ADDRESS)


def prefetch(builder: Any, address: Any, bytes_from: int, bytes_to: int) -> None:
    """Bring these bytes after `address` into the second cache."""
    for line in range(bytes_from, bytes_to, 64):
        ahead = builder.gep(address, [SIZE(line)])
        call(builder, "llvm.prefetch.p0", VOID, ahead, FLAG(0), FLAG(2), FLAG(1))


def load(builder: Any, address: Any, width: int, number: Any) -> Any:
    """Vector `number` of those from `address` on, of values of `width` bytes, as float32."""
    wide = ir.VectorType(FLAG, LANES)
    kind = {4: VECTOR, 2: ir.VectorType(ir.IntType(16), LANES), 1: ir.VectorType(BYTE, LANES)}[width]
    pointer = builder.gep(address, [builder.mul(number, SIZE(LANES * width))])
    values = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=width)
    if width == 4:
        return values
    if width == 1:
        return builder.sitofp(builder.sext(values, wide), VECTOR)
    return builder.bitcast(builder.shl(builder.zext(values, wide), ir.Constant(wide, [16] * LANES)), VECTOR)


def spread(builder: Any, value: Any) -> Any:
    """A vector of one value."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(FLAG, LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(nothing, value, FLAG(0)), nothing, zeros)


def total(builder: Any, vector: Any) -> Any:
    """The sum of a vector: its halves are added until one value is left."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        lower, upper = (
            builder.shuffle_vector(
                vector, ir.Constant(vector.type, ir.Undefined), ir.Constant(ir.VectorType(FLAG, lanes), list(numbers))
            )
            for numbers in (range(lanes), range(lanes, 2 * lanes))
        )
        vector = builder.fadd(lower, upper)
    return builder.extract_element(vector, FLAG(0))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """`a` times `b` plus `c`, vectors or single values, rounded once if the processor is as fast at that."""
    return call(builder, f"llvm.fmuladd.v{LANES}f32" if a.type == VECTOR else "llvm.fmuladd.f32", a.type, a, b, c)


class Loop:
    """`with Loop(builder, count, values) as loop`: runs at least once; `loop.values` are carried on by `loop.keep`."""

    def __init__(self, builder: Any, count: Any, values: list[Any]) -> None:
        self.builder, self._count = builder, count
        before, self._body = builder.block, builder.append_basic_block("loop")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.number = builder.phi(SIZE)
        self.number.add_incoming(SIZE(0), before)
        self.values = [builder.phi(value.type) for value in values]
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, before)
        self.last: list[Any] = []

    def __enter__(self) -> Loop:
        return self

    def keep(self, values: list[Any]) -> None:
        self.last = values

    def __exit__(self, *_: object) -> None:
        builder, after = self.builder, self.builder.append_basic_block("after")
        following = builder.add(self.number, SIZE(1))
        self.number.add_incoming(following, builder.block)
        for phi, value in zip(self.values, self.last, strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, self._count), self._body, after)
        builder.position_at_end(after)

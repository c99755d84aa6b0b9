"""Vectors of doubles in code that is emitted as LLVM: arithmetic that always fills the registers.

LLVM vectorises a loop as it sees fit, with half of the registers' width on processors that it marks
``prefer-256-bit``. Vectors that are written out keep the width of `registers.WIDTH` there too.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

DOUBLE, INTEGER = ir.DoubleType(), ir.IntType(64)


class Vector:
    """Some doubles; ``a * b + c`` is rounded once where the processor can."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _by(self, operation: str, other: Vector, *flags: str) -> Vector:
        value = getattr(self.builder, operation)(self.value, other.value, flags=flags)
        return Vector(self.builder, value)

    def __add__(self, other: Vector) -> Vector:
        return self._by("fadd", other, "contract")

    def __sub__(self, other: Vector) -> Vector:
        return self._by("fsub", other, "contract")

    def __mul__(self, other: Vector) -> Vector:
        return self._by("fmul", other, "contract")

    def __neg__(self) -> Vector:
        return Vector(self.builder, self.builder.fneg(self.value))

    def __truediv__(self, other: Vector) -> Vector:
        return self._by("fdiv", other)

    def rounded_times(self, other: Vector) -> Vector:
        """The product, rounded whatever it is added to."""
        return self._by("fmul", other)

    def rounded_plus(self, other: Vector) -> Vector:
        """The sum of two numbers that are rounded already."""
        return self._by("fadd", other)

    def rounded_minus(self, other: Vector) -> Vector:
        """The difference of two numbers that are rounded already."""
        return self._by("fsub", other)

    def is_negative(self) -> Any:
        """Of each double, as a vector of bits."""
        zero = ir.Constant(self.value.type, [0.0] * self.value.type.count)
        return self.builder.fcmp_ordered("<", self.value, zero)

    def bits(self) -> Any:
        """The doubles as integers."""
        return self.builder.bitcast(self.value, ir.VectorType(INTEGER, self.value.type.count))


class Emitter:
    """Emits loads, stores and loops over vectors of ``width`` doubles."""

    def __init__(self, context: Any, builder: Any, width: int) -> None:
        self.context, self.builder, self.width = context, builder, width
        self.type = ir.VectorType(DOUBLE, width)
        self.integers = ir.VectorType(INTEGER, width)

    def number(self, value: int) -> ir.Constant:
        """An index."""
        return ir.Constant(INTEGER, value)

    def of(self, value: Any) -> Vector:
        """An emitted value as a vector."""
        return Vector(self.builder, value)

    def splat(self, value: float) -> Vector:
        """A constant in all lanes."""
        return self.of(ir.Constant(self.type, [float(value)] * self.width))

    def all_integers(self, value: int) -> ir.Constant:
        """The same, of integers."""
        return ir.Constant(self.integers, [value] * self.width)

    def entry(self, array_type: Any, array: Any, offset: Any) -> Any:
        """Pointer to an entry of a flat numba array."""
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(data, [offset])

    def along(self, start: Any, index: Any, stride: Any) -> Any:
        """Pointer to ``start[index * stride]``."""
        return self.builder.gep(start, [self.builder.mul(index, stride)])

    def vector_at(self, start: Any, index: Any) -> Any:
        """Pointer to a vector that begins at ``start[index]``."""
        return self.builder.bitcast(self.builder.gep(start, [index]), self.type.as_pointer())

    def again(self, pointer: Any) -> Any:
        """The same pointer, but new to LLVM: no earlier load from it is kept for a later one."""
        same = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.asm(same, "", "=r,0", [pointer], side_effect=False)

    def load(self, start: Any, index: Any) -> Vector:
        """The vector there, wherever it is aligned."""
        return self.of(self.builder.load(self.vector_at(start, index), align=8))

    def store(self, vector: Vector, start: Any, index: Any) -> None:
        """Write it there."""
        self.builder.store(vector.value, self.vector_at(start, index), align=8)

    def variable(self, value: Any) -> Any:
        """Room for something that a loop changes; LLVM keeps it in a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def broadcast(self, pointer: Any) -> Vector:
        """The double there, in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        first = self.builder.insert_element(undefined, self.builder.load(pointer), zero)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.of(self.builder.shuffle_vector(first, undefined, everywhere))

"""Matrix products that keep their result in vector registers, emitted as LLVM code.

    out[j, :] (+)= sum_k A[j row_stride + k k_stride] B[k, :],      j < height, k < length

The last axis of ``out`` and ``B`` fills a few vector registers: it is a SIMD block of runs, or a
span of coordinates of one run. A BLAS packs its operands at every call and works in blocks of its
own size, which at n = 20 costs as much as the product; here the operands are packed already. Each
entry is one chain of multiply-adds over ascending k, from zero or from what ``out`` holds. The
chain does not depend on how a larger product is cut into these, so the numbers of a run do not
depend on its neighbours, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic


def doubles_per_register(features: str) -> int:
    """Doubles in a vector register of a processor with these features, as LLVM lists them.

    >>> [doubles_per_register(f) for f in ("+sse4.2", "+avx,+avx2,-avx512f", "+avx,+avx512f", "")]
    [2, 4, 8, 2]
    """
    found = features.split(",")
    if "+avx512f" in found:
        return 8
    return 4 if "+avx" in found else 2


def compiled_for() -> str:
    """The features that numba compiles for: this processor's, or those of NUMBA_CPU_FEATURES.

    They are part of the key under which numba keeps compiled code, so code of one width is never
    taken for another's.
    """
    context: Any = cpu_target.target_context
    _, _, features = context.codegen().magic_tuple()
    return features


WIDTH = doubles_per_register(compiled_for())
"""Doubles in a vector register that the kernels may use."""

LANES = 2 * WIDTH
"""Runs in a SIMD block. Two registers by six rows are twelve sums at a time, enough to hide the
latency of a multiply-add, and they fit into the 16 registers of AVX2."""

MOST_VECTORS = 6
"""Registers that a span of the coordinates of a single run fills, at most."""


class _Emitter:
    """Writes the LLVM code of a product; ``width`` is the length of the last axis."""

    def __init__(self, context: Any, builder: Any, width: int, index_type: Any) -> None:
        self.context, self.builder, self.width = context, builder, width
        self.index_type = index_type
        self.vector = ir.VectorType(ir.DoubleType(), WIDTH)

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(self.index_type, value)

    def entry(self, array_type: Any, array: Any, offset: Any) -> Any:
        """Pointer to an entry of a flat numba array."""
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(data, [offset])

    def along(self, start: Any, index: Any, stride: Any) -> Any:
        """Pointer to ``start[index * stride]``."""
        return self.builder.gep(start, [self.builder.mul(index, stride)])

    def vectors(self, array: Any, row: Any) -> list[Any]:
        """Pointers to the vectors of a row of ``out`` or ``B``."""
        first = self.along(array, row, self.number(self.width))
        starts = [self.number(place) for place in range(0, self.width, WIDTH)]
        pointers = [self.builder.gep(first, [start]) for start in starts]
        return [self.builder.bitcast(p, self.vector.as_pointer()) for p in pointers]

    def broadcast(self, pointer: Any) -> Any:
        """The double there, in all lanes of a vector."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        first = self.builder.insert_element(undefined, self.builder.load(pointer), zero)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return self.builder.shuffle_vector(first, undefined, everywhere)

    def multiply_add(self, total: Any, factor: Any, vector: Any) -> None:
        """Add factor * vector to the total, rounded once where the processor can."""
        term = self.builder.fmul(factor, vector, flags=("contract",))
        value = self.builder.fadd(term, self.builder.load(total), flags=("contract",))
        self.builder.store(value, total)

    def rows_in_registers(
        self, out: Any, A: Any, row_stride: Any, k_stride: Any, B: Any, length: Any,
        height: int, accumulate: bool,
    ) -> None:  # fmt: skip
        """``height`` rows, few enough for LLVM to keep all of their sums in registers."""
        builder = self.builder
        places = [self.vectors(out, self.number(j)) for j in range(height)]
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in row] for row in places]
        pairs = [(p, s) for row in range(height) for p, s in zip(places[row], sums[row])]  # noqa: B905
        for place, total in pairs:
            zero = ir.Constant(self.vector, [0.0] * WIDTH)
            builder.store(builder.load(place, align=8) if accumulate else zero, total)
        with cgutils.for_range(builder, length) as loop:
            right = [builder.load(vector, align=8) for vector in self.vectors(B, loop.index)]
            column = self.along(A, loop.index, k_stride)
            for j, row in enumerate(sums):
                factor = self.broadcast(self.along(column, self.number(j), row_stride))
                for total, vector in zip(row, right, strict=True):
                    self.multiply_add(total, factor, vector)
        for place, total in pairs:
            builder.store(builder.load(total), place, align=8)


def _block_product(accumulate: bool) -> Callable[..., None]:
    """The product for SIMD blocks of runs, of any height, 6, 2 or 1 rows at a time.

    Called as ``product(out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length)``, with
    flat arrays and where to start in them.
    """

    @intrinsic
    def product(typing, out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length) -> Any:  # type: ignore
        at = types.intp
        signature = types.void(out, at, at, A, at, at, at, B, at, at)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length = arguments
            emitter = _Emitter(context, builder, LANES, length.type)
            kinds = signature.args
            out = emitter.entry(kinds[0], out, out_at)
            A, B = emitter.entry(kinds[3], A, A_at), emitter.entry(kinds[7], B, B_at)
            done = emitter.number(0)
            for rows in (6, 2, 1):
                size = emitter.number(rows)
                passes = builder.sdiv(builder.sub(height, done), size)
                with cgutils.for_range(builder, passes) as loop:
                    j = builder.add(done, builder.mul(loop.index, size))
                    emitter.rows_in_registers(
                        emitter.along(out, j, emitter.number(LANES)),
                        emitter.along(A, j, row_stride),
                        row_stride, k_stride, B, length, rows, accumulate,
                    )  # fmt: skip
                done = builder.add(done, builder.mul(passes, size))
            return context.get_dummy_value()

        return signature, emit

    return product


def _span_product(accumulate: bool) -> Callable[..., None]:
    """The product of one row a and a B of 1 to `MOST_VECTORS` registers: B^T a.

    Called as ``product(out, out_at, vectors, a, B, B_at, length)``.
    """

    @intrinsic
    def product(typing, out, out_at, vectors, a, B, B_at, length) -> Any:  # type: ignore
        at = types.intp
        signature = types.void(out, at, at, a, B, at, at)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_at, vectors, a, B, B_at, length = arguments
            kinds = signature.args
            for count in range(1, MOST_VECTORS + 1):
                emitter = _Emitter(context, builder, count * WIDTH, length.type)
                one = emitter.number(1)
                chosen = builder.icmp_signed("==", vectors, emitter.number(count))
                with builder.if_then(chosen):
                    emitter.rows_in_registers(
                        emitter.entry(kinds[0], out, out_at),
                        emitter.entry(kinds[3], a, emitter.number(0)),
                        one, one, emitter.entry(kinds[4], B, B_at), length, 1, accumulate,
                    )  # fmt: skip
            return context.get_dummy_value()

        return signature, emit

    return product


set_block_product, add_block_product = _block_product(False), _block_product(True)
set_span_product, add_span_product = _span_product(False), _span_product(True)

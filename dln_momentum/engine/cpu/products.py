"""Matrix products that keep their result in vector registers, emitted as LLVM code.

    out[j, :] (+)= sum_k A[j row_stride + k k_stride] B[k, :],      j < height, k < length

The last axis of ``out`` and ``B`` fills a few vector registers: it is a SIMD block of runs, or a
span of coordinates of one run. A BLAS packs its operands at every call and works in blocks of its
own size, which at n = 20 costs as much as the product; here the operands are packed already. Each
entry is one chain of multiply-adds over ascending k, from zero or from what ``out`` holds. The
chain does not depend on how a larger product is cut into these, nor on the register block, so the
numbers of a run do not depend on either, nor on its neighbours, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from dln_momentum.engine.cpu.registers import BLOCK, WIDTH, RegisterBlock
from dln_momentum.engine.cpu.vectors import Emitter, Vector

MOST_VECTORS = 6
"""Registers that a span of the coordinates of a single run fills, at most."""


def rows_in_registers(
    emitter: Emitter, out: Any, A: Any, row_stride: Any, k_stride: Any, B: Any, length: Any,
    block: RegisterBlock, accumulate: bool, less: Any = None,
) -> None:  # fmt: skip
    """The product of a height of ``block.rows``: all of its sums stay in registers."""
    builder, width = emitter.builder, emitter.width
    row = block.vectors * width
    starts = [emitter.number(v * width) for v in range(block.vectors)]
    places = [[emitter.number(j * row + v * width) for v in range(block.vectors)]
              for j in range(block.rows)]  # fmt: skip
    zero = emitter.splat(0.0)

    def first(at: Any) -> Vector:
        if less is not None:
            return -emitter.load(less, at)
        return emitter.load(out, at) if accumulate else zero

    sums = [[emitter.variable(first(at).value) for at in ats] for ats in places]
    with cgutils.for_range(builder, length) as loop:
        of_B = emitter.along(B, loop.index, emitter.number(row))
        right = [emitter.load(of_B, start) for start in starts]
        column = emitter.along(A, loop.index, k_stride)
        for j, totals in enumerate(sums):
            factor = emitter.broadcast(emitter.along(column, emitter.number(j), row_stride))
            for total, vector in zip(totals, right, strict=True):
                value = emitter.of(builder.load(total)) + factor * vector
                builder.store(value.value, total)
    for ats, totals in zip(places, sums, strict=True):
        for at, total in zip(ats, totals, strict=True):
            emitter.store(emitter.of(builder.load(total)), out, at)


def any_height(
    emitter: Emitter, out: Any, height: Any, A: Any, row_stride: Any, k_stride: Any, B: Any,
    length: Any, block: RegisterBlock, accumulate: bool, less: Any = None,
) -> None:  # fmt: skip
    """The product of any height, in the fewest pieces of nearly equal heights.

    A short piece has too few sums to hide the latency of a multiply-add: 20 rows are 4 times 5, not
    6 + 6 + 6 + 2.
    """
    builder, one = emitter.builder, emitter.number(1)
    most = emitter.number(block.rows)
    pieces = builder.udiv(builder.add(height, emitter.number(block.rows - 1)), most)
    divisor = builder.select(builder.icmp_unsigned("==", pieces, emitter.number(0)), one, pieces)
    low, higher = builder.udiv(height, divisor), builder.urem(height, divisor)
    done = emitter.variable(emitter.number(0))
    with cgutils.for_range(builder, pieces) as loop:
        j = builder.load(done)
        is_higher = builder.icmp_unsigned("<", loop.index, higher)
        size = builder.add(low, builder.zext(is_higher, low.type))
        builder.store(builder.add(j, size), done)
        row = emitter.number(block.vectors * emitter.width)
        to = emitter.along(out, j, row)
        less_here = None if less is None else emitter.along(less, j, row)
        of_A = emitter.along(A, j, row_stride)
        end = builder.append_basic_block("piece.done")
        switch = builder.switch(size, end)
        for rows in range(1, block.rows + 1):
            case = builder.append_basic_block(f"rows.{rows}")
            switch.add_case(emitter.number(rows), case)
            builder.position_at_end(case)
            part = RegisterBlock(block.vectors, rows)
            rows_in_registers(
                emitter, to, of_A, row_stride, k_stride, B, length, part, accumulate, less_here
            )
            builder.branch(end)
        builder.position_at_end(end)


def block_product(accumulate: bool, block: RegisterBlock) -> Callable[..., None]:
    """The product for SIMD blocks of runs, of any height.

    Called as ``product(out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length)``, with
    flat arrays and where to start in them.
    """

    @intrinsic
    def product(typing, out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length) -> Any:  # type: ignore
        at = types.intp
        signature = types.void(out, at, at, A, at, at, at, B, at, at)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length = arguments
            emitter = Emitter(context, builder, WIDTH)
            kinds = signature.args
            any_height(
                emitter, emitter.entry(kinds[0], out, out_at), height,
                emitter.entry(kinds[3], A, A_at), row_stride, k_stride,
                emitter.entry(kinds[7], B, B_at), length, block, accumulate,
            )  # fmt: skip
            return context.get_dummy_value()

        return signature, emit

    return product


def _less_block_product(block: RegisterBlock) -> Callable[..., None]:
    """The product for SIMD blocks less another array, which is laid out as ``out`` is.

    Called as `block_product` is, with the other array and where to start in it at the end.
    """

    @intrinsic
    def product(
        typing, out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length, less, less_at
    ) -> Any:  # type: ignore
        at = types.intp
        signature = types.void(out, at, at, A, at, at, at, B, at, at, less, at)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, out_at, height, A, A_at, row_stride, k_stride, B, B_at, length = arguments[:10]
            emitter, kinds = Emitter(context, builder, WIDTH), signature.args
            any_height(
                emitter, emitter.entry(kinds[0], out, out_at), height,
                emitter.entry(kinds[3], A, A_at), row_stride, k_stride,
                emitter.entry(kinds[7], B, B_at), length, block, False,
                emitter.entry(kinds[10], *arguments[10:]),
            )  # fmt: skip
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
            kinds, emitter = signature.args, Emitter(context, builder, WIDTH)
            one = emitter.number(1)
            to, of_B = emitter.entry(kinds[0], out, out_at), emitter.entry(kinds[4], B, B_at)
            of_a = emitter.entry(kinds[3], a, emitter.number(0))
            for count in range(1, MOST_VECTORS + 1):
                chosen = builder.icmp_signed("==", vectors, emitter.number(count))
                with builder.if_then(chosen):
                    block = RegisterBlock(count, 1)
                    rows_in_registers(emitter, to, of_a, one, one, of_B, length, block, accumulate)
            return context.get_dummy_value()

        return signature, emit

    return product


set_block_product, add_block_product = block_product(False, BLOCK), block_product(True, BLOCK)
less_block_product = _less_block_product(BLOCK)
set_span_product, add_span_product = _span_product(False), _span_product(True)

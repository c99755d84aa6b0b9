"""The multiply-adds of a step's two matrix products, on numbers that never leave the registers.

No program that forms the products can be faster on one core, however well it uses the caches.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from benchmarks.setup import Advance, Task
from dln_momentum.engine.cpu.registers import WIDTH

SUMS = 12
"""Independent chains: enough to hide a multiply-add's latency, few enough for 16 registers."""


def multiply_adds(task: Task) -> Advance:
    """2 n d of them for each run and step."""
    per_step = 2 * task.n * task.d * task.runs / (SUMS * WIDTH)

    def advance(steps: int) -> None:
        _take(round(steps * per_step))

    return advance


@intrinsic
def _chains(typing, rounds) -> Any:  # type: ignore[no-untyped-def]
    """Multiply and add in all chains, ``rounds`` times over; what comes of it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), WIDTH)
        factor, term = (ir.Constant(vector, [value] * WIDTH) for value in (0.999, 0.001))
        sums = [cgutils.alloca_once(builder, vector) for _ in range(SUMS)]
        for place, chain in enumerate(sums):
            # equal chains would be computed once
            builder.store(ir.Constant(vector, [float(place)] * WIDTH), chain)
        with cgutils.for_range(builder, arguments[0]):
            for chain in sums:
                product = builder.fmul(builder.load(chain), factor, flags=("contract",))
                builder.store(builder.fadd(product, term, flags=("contract",)), chain)
        total = builder.load(sums[0])
        for chain in sums[1:]:
            total = builder.fadd(total, builder.load(chain))
        entries = [
            builder.extract_element(total, ir.Constant(ir.IntType(32), place))
            for place in range(WIDTH)
        ]
        result = entries[0]
        for entry in entries[1:]:
            result = builder.fadd(result, entry)
        return result

    return types.float64(types.intp), emit


@numba.njit(fastmath={"contract"})
def _take(rounds: Any) -> Any:
    return _chains(rounds)  # type: ignore[call-arg]

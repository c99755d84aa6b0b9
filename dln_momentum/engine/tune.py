"""Measure which register block is the fastest on this machine, and keep it.

    python -m dln_momentum.engine.tune

Times the two products of a step with each candidate, interleaved, and writes the fastest block to a
file that later processes read when they load the kernels. Results have the same bits with each, so
the file decides nothing but speed; without it a rule decides (`registers.block_by_rule`), and
``DLN_MOMENTUM_REGISTERS`` wins over both.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

from dln_momentum.engine.backends import compiles
from dln_momentum.engine.cpu.compiled import OPTIONS, zeros_in_large_pages
from dln_momentum.engine.cpu.products import block_product
from dln_momentum.engine.cpu.registers import (
    VARIABLE,
    WIDTH,
    RegisterBlock,
    block_by_rule,
    compiled_for,
    kept_at,
    registers_of,
)

SHAPES = ((20, 30), (40, 100), (200, 100))
"""Rows and columns: two small problems, and one panel of (200, 1000)."""

ROUNDS = 15
FLOPS = 1.5e7
"""Operations of one timing: half a millisecond to a millisecond."""

GAIN = 0.02
"""Another block replaces the rule's if it is faster by so much: less is within the noise."""

kept_in_memory: Any = numba.njit
"""A private option is not in the types of its arguments."""

Product = Callable[[int, int], float]
"""Microseconds a step and run at so many rows and columns, timed now."""


def candidates(features: str) -> list[RegisterBlock]:
    """The blocks to compare, the rule's first: those that nearly fill the registers.

    >>> [str(block) for block in candidates("+avx,+avx512f")]
    ['2x12', '3x9', '4x6']
    """
    rows = {2: 12, 3: 9, 4: 6} if registers_of(features) == 32 else {2: 6, 3: 4}
    return [RegisterBlock(vectors, most) for vectors, most in rows.items()]


def product_of(block: RegisterBlock) -> Product:
    """Compile the products with a register block."""
    add, lanes = block_product(True, block), block.vectors * WIDTH

    @kept_in_memory(**(OPTIONS | {"_nrt": False}))
    def steps(times: int, n: int, d: int, A: Any, gradient: Any, residual: Any, theta: Any) -> None:
        for _ in range(times):
            add(gradient, 0, d, A, 0, 1, d, residual, 0, n)
            add(residual, 0, n, A, 0, d, 1, theta, 0, d)

    def microseconds(n: int, d: int) -> float:
        times = max(1, round(FLOPS / (4 * n * d * lanes)))
        # zeros stay zeros: nothing overflows, and a multiply-add takes as long
        arrays = [zeros_in_large_pages(size) for size in (n * d, d * lanes, n * lanes, d * lanes)]
        steps(1, n, d, *arrays)
        started = time.perf_counter()
        steps(times, n, d, *arrays)
        return 1e6 * (time.perf_counter() - started) / (times * lanes)

    return microseconds


def measure(products: Sequence[Product], rounds: int = ROUNDS) -> np.ndarray:
    """Microseconds a step and run, [product, shape]: the smallest of the rounds."""
    costs = [[[time(n, d) for n, d in SHAPES] for time in products] for _ in range(rounds)]
    return np.min(costs, axis=0)


def fastest(costs: np.ndarray) -> int:
    """Which product is the fastest over all shapes; 0, the rule's, unless by `GAIN`.

    >>> fastest(np.array([[1.0, 1.0], [0.5, 0.9], [0.9, 0.9]]))
    1
    >>> fastest(np.array([[1.0, 1.0], [0.99, 0.99]]))
    0
    """
    relative = np.exp(np.log(costs / costs[0]).mean(axis=1))
    best = int(relative.argmin())
    return best if relative[best] < 1 - GAIN else 0


def keep(block: RegisterBlock, costs: dict[str, list[float]], path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"block": str(block), "shapes": SHAPES, "microseconds": costs}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(record, file, indent=1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def table(blocks: Sequence[RegisterBlock], costs: np.ndarray) -> list[str]:
    """Microseconds a step and run, a line for each block."""
    heads = [f"({n}, {d})" for n, d in SHAPES]
    lines = ["block  " + "".join(f"{head:>12}" for head in heads)]
    for block, row in zip(blocks, costs, strict=True):
        lines.append(f"{block!s:<7}" + "".join(f"{cost:>12.4f}" for cost in row))
    return lines


def main() -> None:
    """Measure, print, and keep."""
    if not compiles():
        sys.exit("NUMBA_DISABLE_JIT turns numba's compiler off: nothing can be measured")
    started, features = time.perf_counter(), compiled_for()
    blocks = candidates(features)
    costs = measure([product_of(block) for block in blocks])
    best = blocks[fastest(costs)]
    seconds = time.perf_counter() - started
    print(f"the two products of a step, microseconds a step and run; measured in {seconds:.2f} s")
    print("\n".join(table(blocks, costs)))
    print(f"fastest: {best}; the rule gives {block_by_rule(features)}")
    if VARIABLE in os.environ:
        print(f"{VARIABLE} = {os.environ[VARIABLE]} is set and wins over what is kept")
    try:
        path = kept_at()
        keep(best, {str(b): list(row) for b, row in zip(blocks, costs, strict=True)}, path)
    except (OSError, RuntimeError) as error:
        sys.exit(f"cannot be kept ({error}); {VARIABLE}={best} in the environment does the same")
    print(f"kept in {path}; remove the file to return to the rule")


if __name__ == "__main__":
    main()

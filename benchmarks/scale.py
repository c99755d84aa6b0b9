"""How the cost of a step grows with n, d, R, and a block's with its steps, as fitted exponents.

Each size is varied alone, the others at a reference; CPU seconds of one thread. An exponent is the
slope of log cost over log size by least squares, in each of several rounds, in which the sizes
take turns: printed is the median of the rounds and half the distance of their quartiles, and the
largest factor by which a size lies off the line. Blocks have a fixed cost, so that their cost is
fitted as a + b K instead. With ``--cores`` wall-clock time on two threads over that on one.

    python -m benchmarks.scale
    python -m benchmarks.scale --cores     # on a quiet machine
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine
from benchmarks.setup import Task
from dln_momentum import Engine

Clock = Callable[[], float]


@dataclass(frozen=True)
class Line:
    """One size, and what the others are meanwhile.

    Attributes:
        name: of the size.
        fixed: the other sizes, in words.
        sizes: the values.
        task: the runs of each value.
        expected: the exponent that the operation count has.
    """

    name: str
    fixed: str
    sizes: Sequence[int]
    task: Callable[[int], Task]
    expected: float


LINES = (
    Line("d", "n = 40, R = 64", (100, 200, 400, 800, 1600, 3200), lambda d: Task(40, d, 64), 1),
    Line("d", "n = 40, R = 1", (100, 200, 400, 800, 1600, 3200), lambda d: Task(40, d, 1), 1),
    Line("n", "d = 1000, R = 64", (20, 40, 80, 160, 320), lambda n: Task(n, 1000, 64), 1),
    Line("n", "d = 1000, R = 1", (20, 40, 80, 160, 320), lambda n: Task(n, 1000, 1), 1),
    Line("R", "n = 20, d = 30", (64, 256, 1024, 4096, 16384), lambda R: Task(20, 30, R), 1),
    Line("R", "n = 40, d = 100", (64, 256, 1024, 4096), lambda R: Task(40, 100, R), 1),
    Line("R", "n = 200, d = 1000", (64, 128, 256, 512), lambda R: Task(200, 1000, R), 1),
)
BLOCKS = (1, 10, 100, 1000, 10_000)


def seconds_a_step(engine: Engine, slice_seconds: float, clock: Clock) -> float:
    """Of one block that takes about so many seconds."""
    steps, taken = 1, 0.0
    while taken < slice_seconds / 4:
        steps *= 4
        taken = timed(engine, steps, clock)
    steps = max(1, int(steps * slice_seconds / taken))
    return timed(engine, steps, clock) / steps


def timed(engine: Engine, steps: int, clock: Clock) -> float:
    """Seconds of a block of so many steps."""
    started = clock()
    engine.advance(steps)
    return clock() - started


def exponent(sizes: Sequence[int], seconds: np.ndarray) -> tuple[float, float]:
    """The slope of log seconds over log size, and the largest factor off the line.

    >>> slope, off = exponent([1, 2, 4], np.array([3.0, 6.0, 12.0]))
    >>> round(slope, 12), round(off, 12)
    (1.0, 1.0)
    """
    x, y = np.log(sizes), np.log(seconds)
    slope, constant = np.polyfit(x, y, 1)
    return float(slope), float(np.exp(np.abs(y - slope * x - constant).max()))


def measured(line: Line, rounds: int, slice_seconds: float) -> list[str]:
    """A row of the table."""
    engines = [line.task(size).engine() for size in line.sizes]
    times = np.array(
        [
            [seconds_a_step(e, slice_seconds, time.process_time) for e in engines]
            for _ in range(rounds)
        ]
    )
    fits = [exponent(line.sizes, row) for row in times]
    slopes = [slope for slope, _ in fits]
    return [
        line.name,
        line.fixed,
        f"{line.sizes[0]} to {line.sizes[-1]}",
        _middle(slopes),
        f"{line.expected:g}",
        f"{np.median([off for _, off in fits]):.2f}",
        " to ".join(f"{value * 1e6:.3g}" for value in np.median(times, axis=0)[[0, -1]]),
    ]


def block_costs(task: Task, rounds: int) -> tuple[str, str]:
    """Microseconds of a block and of each of its steps, for a block of K steps: a + b K."""
    engine = task.engine()
    engine.advance(10)
    found = []
    for _ in range(rounds):
        # a short block is timed many times over
        times = [
            np.mean([timed(engine, K, time.process_time) for _ in range(max(1, 200 // K))])
            for K in BLOCKS
        ]
        weights = 1 / np.array(times)
        b, a = np.polyfit(BLOCKS, times, 1, w=weights)
        found.append((a * 1e6, b * 1e6))
    fixed, step = zip(*found, strict=True)
    return _middle(fixed), _middle(step)


def two_threads(task: Task, rounds: int, slice_seconds: float) -> str:
    """Wall-clock time of a step on two threads over that on one."""
    one, two = (task.engine(num_workers=workers) for workers in (1, 2))
    pairs = [
        [seconds_a_step(engine, slice_seconds, time.perf_counter) for engine in (one, two)]
        for _ in range(rounds)
    ]
    return _middle([both / alone for alone, both in pairs])


def _middle(values: Sequence[float]) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g} ± {(high - low) / 2:.1g}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds of a measurement")
    parser.add_argument("--cores", action="store_true", help="wall-clock time on two threads")
    keys = parser.parse_args()
    torch.set_num_threads(1)
    Task(20, 30, 64).engine().advance(10)  # compiled code is not counted
    Task(20, 30, 1).engine().advance(10)
    console = Console(width=140)
    console.print(header(machine()))
    table = Table("size", "others", "from, to", "exponent", "by count", "off the line", "us a step")
    for line in LINES:
        table.add_row(*measured(line, keys.rounds, keys.slice))
    console.print(table)
    blocks = Table("n, d, R", "a block, us", "a step, us")
    for task in (Task(20, 30, 1), Task(20, 30, 256), Task(40, 100, 1), Task(40, 100, 256)):
        blocks.add_row(f"{task.n}, {task.d}, {task.runs}", *block_costs(task, keys.rounds))
    console.print(blocks)
    if keys.cores:
        cores = Table("n, d, R", "two threads / one")
        for task in (Task(20, 30, 4096), Task(40, 100, 1024), Task(200, 1000, 256)):
            ratio = two_threads(task, keys.rounds, keys.slice)
            cores.add_row(f"{task.n}, {task.d}, {task.runs}", ratio)
        console.print(cores)


if __name__ == "__main__":
    main()

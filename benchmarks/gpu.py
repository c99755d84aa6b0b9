"""Runs a second on a GPU against one core of the CPU beside it, and against the card's own rate.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --sizes 40x100 --runs 1000 100000 --json results.json

Every contender takes blocks of steps of the same runs, in turn, with telescoped sums. Times are
wall-clock times up to the card's last operation. The floor is the time of a step's multiply-adds,
2 n d a run, at the rate of a large product of float64 matrices, measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rich.table import Table

from benchmarks.engine import Measured, console
from benchmarks.machine import header, machine
from benchmarks.setup import Advance, Task
from dln_momentum.engine import torch_kernel
from dln_momentum.engine.gpu import kernel

SIZES = ("20x30", "40x100")
RUNS = (1_000, 10_000, 100_000, 1_000_000)
CPU_RUNS = 256
SQUARE = 8192
"""Rows of the matrices whose product gives the card's rate."""


def card() -> dict[str, str]:
    """The GPU, and the version of CUDA that torch was built with."""
    found = torch.cuda.get_device_properties(0)
    memory = f"{found.total_memory / 2**30:.0f} GiB"
    return {"GPU": found.name, "GPU memory": memory, "CUDA": str(torch.version.cuda)}


def multiply_adds_a_second() -> float:
    """The rate of a large product of float64 matrices, the best of five."""
    matrix = torch.randn(SQUARE, SQUARE, dtype=torch.float64, device="cuda")
    seconds = [_seconds(lambda _: torch.mm(matrix, matrix), 1) for _ in range(6)]
    return SQUARE**3 / min(seconds[1:])


def contenders(task: Task) -> Iterator[tuple[str, Advance]]:
    """Everything that trains the runs of a task on the card."""
    on_card = partial(task.engine, device="cuda", path_sums="telescoped")
    if kernel.why_not(task.n, task.d, torch.device("cuda")) is None:
        yield "engine cuda", on_card(backend="cuda").advance
    yield "engine torch, a recorded graph", on_card(backend="torch").advance
    yield "engine torch, eager", _eagerly(on_card(backend="torch").advance)


def _eagerly(advance: Advance) -> Advance:
    """The same without a recorded graph."""

    def advance_eagerly(steps: int) -> None:
        with patch.object(torch_kernel, "_graph", lambda _, take: take):
            advance(steps)

    return advance_eagerly


def _seconds(advance: Callable[[int], object], steps: int) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    advance(steps)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(task: Task, rounds: int, slice_s: float) -> list[Measured]:
    """Build every contender, then time all of them in every round."""
    ready = []
    for name, advance in contenders(task):
        _seconds(advance, 40)  # compiles
        steps = 40
        while (seconds := _seconds(advance, steps)) < slice_s / 4 and steps < 40_000:
            steps *= 4
        ready.append((name, advance, max(40, round(steps * slice_s / seconds))))
    scale = 1e6 / task.runs
    costs = [
        [scale * _seconds(advance, steps) / steps for _, advance, steps in ready]
        for _ in range(rounds)
    ]
    return [
        Measured(task.n, task.d, task.runs, name, steps, list(column))
        for (name, _, steps), column in zip(ready, zip(*costs, strict=True), strict=True)
    ]


def on_one_core(task: Task, rounds: int, slice_s: float) -> Measured:
    """The compiled kernel of the CPU on one thread."""
    advance = task.engine(backend="numba", path_sums="telescoped").advance
    advance(100)
    steps = max(100, round(100 * slice_s / _seconds(advance, 100)))
    costs = [1e6 * _seconds(advance, steps) / steps / task.runs for _ in range(rounds)]
    return Measured(task.n, task.d, task.runs, "one core of the CPU", steps, costs)


def show(results: list[Measured], core: Measured, floor: float) -> None:
    """One table of a size."""
    table = Table(title=f"(n, d) = ({core.n}, {core.d})")
    base = 1e3 * float(np.median(core.microseconds))
    for column in ("R", "contender", "ns/step/run", "run-steps/s", "/ floor", "one core /"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for result in (core, *results):
        middle = 1e3 * float(np.median(result.microseconds))
        values = (middle, 1e9 / middle, middle / floor, base / middle)
        table.add_row(f"{result.runs:,}", result.contender, *(f"{value:.3g}" for value in values))
    console.print(table)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--runs", nargs="+", type=int, default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.2, help="seconds a contender and round")
    parser.add_argument("--json", type=Path, help="write every single time there as well")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given, torch_threads = arguments(), torch.get_num_threads()
    torch.set_num_threads(1)
    found = machine() | card()
    rate = multiply_adds_a_second()
    found["float64 rate"] = f"{2e-12 * rate:.1f} TFlop/s"
    console.print(header(found))
    everything = []
    for size in given.sizes:
        n, d = map(int, size.split("x"))
        core = on_one_core(Task(n, d, CPU_RUNS), given.rounds, given.slice)
        results = [
            result
            for runs in given.runs
            for result in measure(Task(n, d, runs), given.rounds, given.slice)
        ]
        show(results, core, 1e9 * 2 * n * d / rate)
        everything += [core, *results]
    torch.set_num_threads(torch_threads)
    if given.json:
        content = {"machine": found, "results": [asdict(result) for result in everything]}
        given.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()

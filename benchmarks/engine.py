"""The engine against its floor and its peers, interleaved in one process on one core.

    python -m benchmarks.engine --quick
    python -m benchmarks.engine --sizes 200x1000 --runs 128 --json results.json

A round times every contender once, in turn, over a block of steps. What is printed is the cost of
one step of one run (median over the rounds) and the ratios within a round (median [quartiles]) to
the floor, which is the two matrix products of a step by the fastest BLAS of that round, and to the
engine. Times are CPU times: on a machine that others use, they count the work and not the waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine
from benchmarks.peers import floor, numba_loop, numpy_loop, peak, torch_sgd, torch_textbook
from benchmarks.setup import Advance, Task

SIZES = ((20, 30), (40, 100), (200, 1000), (1000, 10000))
RUNS = (1, 64, 128, 256, 1024)
SHORTEST = 20
"""Steps of the shortest block of what is built for blocks of thousands."""
PATIENCE = 60.0
"""Seconds a round above which a contender is left out."""

console = Console(width=110)


@dataclass(frozen=True)
class Contender:
    """Something that trains the runs of a task."""

    name: str
    build: Callable[[Task], Advance]
    only_one_run: bool = False
    """it trains a single run, and R runs would take R times as long"""
    fewest_steps: int = 1
    """a block much shorter would be measured by its beginning"""
    most_steps: int = 10_000


@dataclass(frozen=True)
class Measured:
    """One contender on one task."""

    n: int
    d: int
    runs: int
    contender: str
    steps: int
    """of one block"""
    microseconds: list[float]
    """per step and run, one of each round"""


def contenders(runs: int) -> Iterator[Contender]:
    """Everything to be compared for so many runs."""
    yield Contender("peak of the processor", peak.multiply_adds)
    for name, build in floor.contenders().items():
        yield Contender(name, build)
    for backend in ("numba", "torch"):
        for sums in ("gradient_sum", "telescoped", "direct"):
            name = f"engine {backend}, {sums}"
            yield Contender(name, _engine(backend, sums), fewest_steps=SHORTEST)
    yield from _jax()
    yield Contender("torch textbook, direct S", torch_textbook.textbook, fewest_steps=2)
    if runs == 1:
        name = "engine numba, gradient_sum, blocks of 1000"
        yield Contender(name, _engine("numba", "gradient_sum"), most_steps=1000)
        yield Contender("numba loop, no S", numba_loop.loop, only_one_run=True)
        yield Contender("numpy loop, no S", numpy_loop.loop, only_one_run=True)
    yield Contender("torch SGD + autograd, no S", torch_sgd.sgd, only_one_run=True)


def _engine(backend: str, path_sums: str) -> Callable[[Task], Advance]:
    return lambda task: task.engine(backend=backend, path_sums=path_sums).advance


def _jax() -> Iterator[Contender]:
    try:
        from benchmarks.peers import jax_scan
    except ModuleNotFoundError as missing:
        console.print(f"skipped: JAX, since {missing.name} is not installed (the extra 'bench')")
        return
    yield Contender("JAX scan, by hand, gradient_sum S", jax_scan.by_hand, fewest_steps=SHORTEST)
    yield Contender("JAX scan, autograd, direct S", jax_scan.by_autograd, fewest_steps=SHORTEST)


@dataclass(frozen=True)
class Ready:
    """A contender with its runs, and how much of it a round takes."""

    contender: Contender
    advance: Advance
    steps: int
    blocks: int

    def microseconds(self, runs: int) -> float:
        """What one step of one run costs, timed now."""
        trained = 1 if self.contender.only_one_run else runs
        return 1e6 * self._seconds() / (self.steps * self.blocks * trained)

    def _seconds(self) -> float:
        started = time.process_time()
        for _ in range(self.blocks):
            self.advance(self.steps)
        return time.process_time() - started


def prepare(contender: Contender, task: Task, slice_s: float) -> Ready | None:
    """Build a contender and find a round of about so many seconds; None where that is no round."""
    advance, steps = contender.build(task), contender.fewest_steps
    started = time.perf_counter()
    advance(steps)  # compiles
    if time.perf_counter() - started > 2 * PATIENCE:
        return None
    seconds = _seconds(advance, steps)
    while seconds < slice_s / 10 and steps < contender.most_steps:
        steps = min(10 * steps, contender.most_steps)
        advance(steps)
        seconds = _seconds(advance, steps)
    if seconds > PATIENCE:
        return None
    most, fewest = contender.most_steps, contender.fewest_steps
    blocks = max(1, round(slice_s / seconds)) if steps == most else 1
    steps = most if steps == most else min(max(round(steps * slice_s / seconds), fewest), most)
    advance(steps)
    return Ready(contender, advance, steps, blocks)


def _seconds(advance: Advance, steps: int) -> float:
    started = time.process_time()
    advance(steps)
    return time.process_time() - started


def measure(task: Task, rounds: int, slice_s: float) -> list[Measured]:
    """Build every contender, then time all of them in every round."""
    ready = []
    for contender in contenders(task.runs):
        prepared = prepare(contender, task, slice_s)
        if prepared is None:
            console.print(f"skipped: {contender.name} takes more than {PATIENCE:g} s a round")
        else:
            ready.append(prepared)
    costs = [[one.microseconds(task.runs) for one in ready] for _ in range(rounds)]
    return [
        Measured(task.n, task.d, task.runs, one.contender.name, one.steps, list(column))
        for one, column in zip(ready, zip(*costs, strict=True), strict=True)
    ]


def ratio(costs: np.ndarray, base: np.ndarray) -> str:
    """Median and quartiles of the paired ratios."""
    low, middle, high = np.quantile(costs / base, (0.25, 0.5, 0.75))
    digits = 2 if middle < 20 else 0
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def show(task: Task, results: list[Measured]) -> None:
    """One table for one task."""
    costs = {result.contender: np.array(result.microseconds) for result in results}
    lowest = np.min([cost for name, cost in costs.items() if name.startswith("floor")], axis=0)
    costs = {"floor (the fastest of the round)": lowest} | costs
    ours = costs["engine numba, gradient_sum"]
    steps = {result.contender: str(result.steps) for result in results}
    table = Table(title=f"(n, d) = ({task.n}, {task.d}), R = {task.runs}")
    for column in ("contender", "steps", "us/step/run", "to the floor", "to the engine"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, cost in costs.items():
        middle = f"{np.median(cost):.3g}"
        table.add_row(name, steps.get(name, ""), middle, ratio(cost, lowest), ratio(cost, ours))
    console.print(table)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", nargs="+", default=[f"{n}x{d}" for n, d in SIZES])
    parser.add_argument("--runs", nargs="+", type=int, default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--slice",
        type=float,
        default=0.1,
        help="seconds that a contender takes in a round; large networks need more, or a block of"
        " theirs is measured by its beginning",
    )
    parser.add_argument("--json", type=Path, help="write every single time there as well")
    parser.add_argument("--quick", action="store_true", help="small sizes, 1 and 64 runs, 5 rounds")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.runs, options.rounds = ["20x30", "40x100"], [1, 64], 5
    return options


def main() -> None:
    """Measure, print, and keep."""
    options = arguments()
    torch.set_num_threads(1)
    # before this process gives up all cores but one
    where = machine()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    console.print(header(where))
    results: list[Measured] = []
    for size in options.sizes:
        n, d = (int(part) for part in size.split("x"))
        for runs in options.runs:
            task = Task(n, d, runs)
            results += (measured := measure(task, options.rounds, options.slice))
            show(task, measured)
            if options.json is not None:
                record = {"machine": where, "argv": sys.argv[1:]}
                record["results"] = [asdict(result) for result in results]
                options.json.write_text(json.dumps(record))


if __name__ == "__main__":
    main()

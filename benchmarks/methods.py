"""What the members of the family cost, relative to heavy ball with constant rates.

    python -m benchmarks.methods --sizes 20x30 40x100 --runs 256

Contenders are interleaved in one process on one core: a round times a block of each in turn. What
is printed is the CPU time of one step of one run (smallest over the rounds) and its ratio to heavy
ball of the same round (median [quartiles]).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engine import ratio
from benchmarks.machine import header, machine
from benchmarks.setup import Advance, Task
from dln_momentum import Engine, EngineOptions
from dln_momentum.method import Method
from dln_momentum.schedules import Arrays, Warmup

PLAIN = "heavy ball"


def methods(runs: int) -> dict[str, Method]:
    """The members that are compared."""
    each = torch.linspace(50, 500, runs, dtype=torch.float64)
    return {
        PLAIN: Method(),
        "an array of momenta": Method(schedule=Arrays(beta=[0.9])),
        "warm-up, one for each run": Method(schedule=Warmup(each)),
        "coupled decay": Method(weight_decay=1e-6),
        "decoupled decay": Method(weight_decay=1e-6, decoupled=True),
        "dampening": Method(dampening=0.1),
        "Nesterov": Method("nesterov"),
        "depth 3": Method(depth=3),
        "depth 2.5": Method(depth=2.5),
    }


def build(task: Task, method: Method, backend: str) -> Advance:
    """The runs of a task by a method."""
    engine = task.engine(backend=backend, path_sums="telescoped")
    if method.is_plain:
        return engine.advance
    u, v = engine.variables(slice(None))[0]
    # u = v at depth D, where both must be positive
    start = (u, u.clone()) if method.is_deep else (u + v, u - v)
    options = EngineOptions(backend=backend, tol=-np.inf)
    return Engine(
        task.problem, engine.gamma, engine.beta, *start, options=options, method=method
    ).advance


def measure(task: Task, backend: str, steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Microseconds a step and run of each method, one of each round."""
    ready = {name: build(task, method, backend) for name, method in methods(task.runs).items()}
    for advance in ready.values():
        advance(steps)
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, advance in ready.items():
            started = time.process_time()
            advance(steps)
            taken = time.process_time() - started
            found[name].append(1e6 * taken / (steps * task.runs))
    return {name: np.array(costs) for name, costs in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", nargs="+", default=["20x30", "40x100"])
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200, help="of a block, with 256 runs")
    parser.add_argument("--backend", default="numba")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=110)
    console.print(header(machine()))
    for size in options.sizes:
        n, d = (int(part) for part in size.split("x"))
        for runs in options.runs:
            steps = options.steps * max(1, 256 // (4 * runs))
            costs = measure(Task(n, d, runs), options.backend, steps, options.rounds)
            table = Table(title=f"(n, d) = ({n}, {d}), R = {runs}, {options.backend}")
            for column in ("method", "us/step/run", f"to {PLAIN}"):
                table.add_column(column, justify="left" if column == "method" else "right")
            for name, cost in costs.items():
                table.add_row(name, f"{cost.min():.3g}", ratio(cost, costs[PLAIN]))
            console.print(table)


if __name__ == "__main__":
    main()

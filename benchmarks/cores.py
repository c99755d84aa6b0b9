"""Two cores for one sweep: threads on shared memory against processes with their own.

    python -m benchmarks.cores

Every layout advances the same runs by the same steps, in turn; what is printed is its wall-clock
time relative to one thread in the same round, as median [quartiles]. Ideal is 1/2.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine
from benchmarks.setup import Task

RUNS, WORKERS = 1024, 2
SIZES = ((20, 30, 400), (40, 100, 80), (200, 1000, 2))
"""n, d, and steps a block: a tenth of a second or so for one thread"""
ROUNDS = 9


def serve(connection: Connection, n: int, d: int, runs: int, backend: str) -> None:
    """A worker process: advances its own runs by as many steps as it is told."""
    engine = Task(n, d, runs).engine(backend=backend)
    connection.send("ready")
    while steps := connection.recv():
        engine.advance(steps)
        connection.send("done")


class Processes:
    """The runs of a sweep dealt out to processes."""

    def __init__(self, n: int, d: int, backend: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.workers = [], []
        for _ in range(WORKERS):
            ours, theirs = context.Pipe()
            arguments = (theirs, n, d, RUNS // WORKERS, backend)
            self.workers.append(context.Process(target=serve, args=arguments, daemon=True))
            self.workers[-1].start()
            self.pipes.append(ours)
        self._wait()

    def advance(self, steps: int) -> None:
        """One block of steps on all of them."""
        for pipe in self.pipes:
            pipe.send(steps)
        self._wait()

    def close(self) -> None:
        """End the processes."""
        for pipe, worker in zip(self.pipes, self.workers, strict=True):
            pipe.send(0)
            worker.join()

    def _wait(self) -> None:
        for pipe in self.pipes:
            pipe.recv()


def measure(n: int, d: int, steps: int, backend: str) -> dict[str, np.ndarray]:
    """Seconds of each layout in each round."""
    task = Task(n, d, RUNS)
    processes = Processes(n, d, backend)
    layouts: dict[str, Callable[[int], None]] = {
        "1 thread": task.engine(backend=backend).advance,
        "2 threads": task.engine(backend=backend, num_workers=WORKERS).advance,
        "2 processes": processes.advance,
    }
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    for _ in range(ROUNDS):
        for name, advance in layouts.items():
            start = time.perf_counter()
            advance(steps)
            seconds[name].append(time.perf_counter() - start)
    processes.close()
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Measure and print."""
    table = Table(title=f"{RUNS} runs, seconds a block and ratios to one thread")
    for column in ("backend", "n, d", "1 thread", "2 threads", "2 processes"):
        table.add_column(column)
    for backend in ("numba", "torch"):
        for n, d, steps in SIZES:
            seconds = measure(n, d, steps, backend)
            alone = seconds.pop("1 thread")
            row = [backend, f"{n}, {d}", f"{np.median(alone):.3f} s"]
            for values in seconds.values():
                low, middle, high = np.quantile(values / alone, (0.25, 0.5, 0.75))
                row.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
            table.add_row(*row)
    Console().print(header(machine()))
    Console().print(table)


if __name__ == "__main__":
    main()

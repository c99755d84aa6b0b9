"""How much memory a large sweep takes, beside the state of its runs.

python -m benchmarks.memory --runs 10000 --n 200 --d 1000 --workers 2
"""

from __future__ import annotations

import argparse
import dataclasses
import resource

from benchmarks.machine import header, machine
from benchmarks.setup import Task
from dln_momentum import Engine


def peak() -> float:
    """The most that this process has ever used, MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def state_size(engine: Engine) -> float:
    """The tensors that the engine carries from block to block, MiB."""
    fields = (getattr(engine.state, field.name) for field in dataclasses.fields(engine.state))
    return sum(t.numel() * t.element_size() for t in fields if t is not None) / 2**20


def main() -> None:
    """Build, advance, read out; print the peak after each."""
    parser = argparse.ArgumentParser()
    for name, value in (("runs", 10_000), ("n", 200), ("d", 1000), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--path-sums", default="gradient_sum")
    parser.add_argument("--backend", default="auto")
    keys = parser.parse_args()
    options = {"path_sums": keys.path_sums, "backend": keys.backend}
    for runs in (1, 64):  # compiled code is not counted
        Task(20, 30, runs).engine(**options).advance(1)
    before = peak()
    engine = Task(keys.n, keys.d, keys.runs).engine(num_workers=keys.workers, **options)
    print(header(machine()))
    print(f"state {state_size(engine):.0f} MiB")
    print(f"built: {peak() - before:.0f} MiB more than before, with what it was built from")
    engine.advance(2)
    print(f"advanced: {peak() - before:.0f} MiB")
    for first in range(0, keys.runs, 500):
        _ = engine.snapshot(slice(first, first + 500)).path_sums
    print(f"read out 500 runs at a time: {peak() - before:.0f} MiB")
    _ = engine.snapshot().path_sums
    print(f"read out whole: {peak() - before:.0f} MiB")


if __name__ == "__main__":
    main()

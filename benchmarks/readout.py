"""The read-out of many runs: their minimisers and certificates, per run and per record.

A sweep over (gamma, beta) is trained, and read out in one call (`summarise`, which solves for three
minimisers a run) and along the path (two minimisers a record). Beside it, for one run each: its
n x n matrix V W V^T formed and factorised once by BLAS and LAPACK, the d x n factorisation QR of
W^(1/2) V^T, and one of the minimisers by SciPy's L-BFGS-B on the dual, from zero. CPU seconds, the
least of the rounds, which are interleaved.

    python -m benchmarks.readout --sizes 20x30 40x100 200x1000 --runs 256 --threads 1 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from torch import Tensor

import dln_momentum as dln
from benchmarks.machine import header, machine
from dln_momentum import summarise
from dln_momentum.outputs.minimisers import potential

COLUMNS = (
    "read-out", "n x n, once", "read-out / it", "d x n QR, once", "SciPy, one minimiser",
    "training", "read-out / training", "a record",
)  # fmt: skip


def swept(n: int, d: int, runs: int, steps: int, records: int) -> dln.Run:
    """A sweep over step sizes and momenta, most of which converge in some thousand steps."""
    side = max(1, round(runs**0.5))
    gamma, beta = np.geomspace(0.1, 1, side) * 4 / (n + d), np.linspace(0.5, 0.95, side)
    problem = dln.sparse(n, d, 3, seed=0)
    start = dln.uniform(alpha=0.1)
    return dln.train(
        problem, start, gamma=gamma[:, None], beta=beta, max_steps=steps, records=records,
        trajectories=records > 2, num_workers=1,
    )  # fmt: skip


def factorised(run: dln.Run, factorise: Callable[[Tensor], object]) -> Callable[[], object]:
    """The factorisation of V sqrt(W) at the end of the first run, as often as there are runs."""
    basis, snapshot = run.problem.row_space.basis, run.snapshot
    root = torch.hypot(snapshot.theta, snapshot.balancedness / 2).sqrt()
    return lambda: [factorise(basis * row) for row in root]


def by_scipy(run: dln.Run) -> np.ndarray:
    """The minimiser of the first run, by the dual in NumPy."""
    delta, c = (value[0].numpy() for value in potential(run.snapshot))
    rows = run.problem.row_space
    V, b = rows.basis.numpy(), rows.target(run.problem.y).numpy()

    def dual(nu: np.ndarray) -> tuple[float, np.ndarray]:
        z = c + nu @ V
        return float(delta @ np.cosh(z) / 2 - nu @ b), V @ (delta * np.sinh(z) / 2) - b

    found = minimize(dual, np.zeros(len(b)), jac=True, method="L-BFGS-B", options={
        "maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30,
    })  # fmt: skip
    return delta * np.sinh(c + found.x @ V) / 2


def least(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of each call; the first round is not counted."""
    found = dict.fromkeys(calls, float("inf"))
    for k in range(rounds + 1):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if k:
                found[name] = min(found[name], time.process_time() - started)
    return found


def measured(n: int, d: int, runs: int, steps: int, rounds: int) -> list[str]:
    """The row of one size: milliseconds of CPU a run."""
    started = time.process_time()
    run = swept(n, d, runs, steps, records=2)
    training = 1e3 * (time.process_time() - started) / len(run.snapshot.loss)
    few = swept(n, d, min(runs, 4), min(steps, 2000), records=150)
    count = len(few.snapshot.loss)
    calls = {
        "read-out": lambda: summarise(run.snapshot, run.problem),
        "n x n": factorised(run, lambda rows: torch.linalg.cholesky_ex(rows @ rows.mT)),
        "d x n": factorised(run, lambda rows: torch.geqrf(rows.mT.contiguous())),
        "scipy": lambda: by_scipy(run),
        "records": lambda: few.to_dataset(distances=True),
        "history": lambda: few.to_dataset(distances=False),
    }
    found = {name: 1e3 * value for name, value in least(calls, rounds).items()}
    R = len(run.snapshot.loss)
    readout, once = found["read-out"] / R, found["n x n"] / R
    records = few.to_dataset(distances=False).sizes["step"] * count
    ms = (found["records"] - found["history"]) / records
    cells = readout, once, readout / once, found["d x n"] / R, found["scipy"], training
    return [f"{x:.3g}" for x in (*cells, readout / training, ms)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["20x30", "40x100", "200x1000"])
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    console = Console()
    console.print(header(machine()))
    table = Table("n, d", "threads", *COLUMNS, title=f"{args.runs} runs, ms of CPU a run")
    for size in args.sizes:
        n, d = map(int, size.split("x"))
        for threads in args.threads:
            torch.set_num_threads(threads)
            row = measured(n, d, args.runs, args.steps, args.rounds)
            table.add_row(f"{n}, {d}", str(threads), *row)
    console.print(table)


if __name__ == "__main__":
    main()

"""One run by numpy, in place, without path sums."""

from __future__ import annotations

import numpy as np

from benchmarks.setup import Advance, Task


def loop(task: Task) -> Advance:
    """A single run, whatever the number of runs of the task."""
    X, y = task.problem.X.numpy(), task.problem.y.numpy()
    X_T = np.ascontiguousarray(X.T)
    u, v = (w[0].numpy().copy() for w in task.start())
    velocity_u, velocity_v = np.zeros_like(u), np.zeros_like(u)
    gamma, beta = task.gamma / task.n, task.beta

    def advance(steps: int) -> None:
        for _ in range(steps):
            gradient = gamma * (X_T @ (X @ (u * v) - y))
            np.multiply(velocity_u, beta, out=velocity_u)
            np.multiply(velocity_v, beta, out=velocity_v)
            np.subtract(velocity_u, gradient * v, out=velocity_u)
            np.subtract(velocity_v, gradient * u, out=velocity_v)
            np.add(u, velocity_u, out=u)
            np.add(v, velocity_v, out=v)

    return advance

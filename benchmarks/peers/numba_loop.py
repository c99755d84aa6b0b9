"""One run by a hand-written numba loop, without path sums, loss or sign changes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from benchmarks.setup import Advance, Task


def loop(task: Task) -> Advance:
    """A single run, whatever the number of runs of the task."""
    X, y = task.problem.X.numpy(), task.problem.y.numpy()
    u, v = (w[0].numpy().copy() for w in task.start())
    velocity_u, velocity_v = np.zeros_like(u), np.zeros_like(u)

    def advance(steps: int) -> None:
        _advance(X, y, u, v, velocity_u, velocity_v, task.gamma, task.beta, steps)

    return advance


@numba.njit(fastmath=True)
def _advance(
    X: Any, y: Any, u: Any, v: Any, velocity_u: Any, velocity_v: Any, gamma: Any, beta: Any,
    steps: Any,
) -> None:  # fmt: skip
    n, d = X.shape
    gradient = np.empty(d)
    for _ in range(steps):
        gradient[:] = 0.0
        for j in range(n):
            residual = 0.0
            for i in range(d):
                residual += X[j, i] * u[i] * v[i]
            residual = (residual - y[j]) / n
            for i in range(d):
                gradient[i] += residual * X[j, i]
        for i in range(d):
            step_u, step_v = gamma * gradient[i] * v[i], gamma * gradient[i] * u[i]
            velocity_u[i] = beta * velocity_u[i] - step_u
            velocity_v[i] = beta * velocity_v[i] - step_v
            u[i] += velocity_u[i]
            v[i] += velocity_v[i]

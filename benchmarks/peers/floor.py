"""The floor: the two matrix products of a step and nothing else, by the fastest BLAS at hand.

    residual = theta A^T,    gradient = residual A

Once by numpy's BLAS and once by torch's, and with the runs as rows and as columns: the benchmark
takes the fastest of the four in each round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.setup import Advance, Task


def contenders() -> dict[str, Callable[[Task], Advance]]:
    """The four by name."""
    return {
        "floor numpy, rows": lambda task: _rows(task, np.matmul, np.empty, np.asarray),
        "floor numpy, columns": lambda task: _columns(task, np.matmul, np.empty, np.asarray),
        "floor torch, rows": lambda task: _rows(task, torch.mm, _empty, torch.as_tensor),
        "floor torch, columns": lambda task: _columns(task, torch.mm, _empty, torch.as_tensor),
    }


def _empty(shape: tuple[int, int]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64)


def _rows(task: Task, product: Callable, empty: Callable, convert: Callable) -> Advance:
    A = convert(task.problem.X.numpy() / np.sqrt(task.n))
    A_T = convert(np.ascontiguousarray(A.T))
    theta = convert(np.ones((task.runs, task.d)))
    residual, gradient = empty((task.runs, task.n)), empty((task.runs, task.d))

    def advance(steps: int) -> None:
        for _ in range(steps):
            product(theta, A_T, out=residual)
            product(residual, A, out=gradient)

    return advance


def _columns(task: Task, product: Callable, empty: Callable, convert: Callable) -> Advance:
    A = convert(task.problem.X.numpy() / np.sqrt(task.n))
    A_T = convert(np.ascontiguousarray(A.T))
    theta = convert(np.ones((task.d, task.runs)))
    residual, gradient = empty((task.n, task.runs)), empty((task.d, task.runs))

    def advance(steps: int) -> None:
        for _ in range(steps):
            product(A, theta, out=residual)
            product(A_T, residual, out=gradient)

    return advance

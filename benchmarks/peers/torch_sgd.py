"""One run by torch.optim.SGD and autograd, without path sums: what a user writes first."""

from __future__ import annotations

import torch

from benchmarks.setup import Advance, Task
from dln_momentum import DiagonalLinearNet


def sgd(task: Task) -> Advance:
    """A single run, whatever the number of runs of the task."""
    problem = task.problem
    net = DiagonalLinearNet.uniform(task.d, task.alpha)
    optimizer = torch.optim.SGD(net.parameters(), lr=task.gamma, momentum=task.beta)

    def advance(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (net(problem.X) - problem.y).square().sum() / (2 * task.n)
            loss.backward()
            optimizer.step()

    return advance

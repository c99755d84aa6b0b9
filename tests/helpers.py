"""Small problems and runs that several test files share."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.data.sparse import sparse
from dln_momentum.engine import Engine, EngineOptions
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def default_problem(seed: int = 0) -> Problem:
    """The default problem of the package, (n, d, s) = (20, 30, 3)."""
    return sparse(20, 30, 3, seed=seed)


def make_engine(
    problem: Problem,
    gamma: float | Tensor = 0.01,
    beta: float | Tensor = 0.9,
    alpha: float = 0.1,
    runs: int = 1,
    net: DiagonalLinearNet | None = None,
    batches=None,
    **options,
) -> Engine:
    """An engine on uniformly initialised networks."""
    net = net or DiagonalLinearNet.uniform(problem.d, alpha, runs=(runs,))
    rates = [torch.as_tensor(x, dtype=torch.float64).expand(runs).clone() for x in (gamma, beta)]
    return Engine(
        problem,
        *rates,
        net.w_plus.detach(),
        net.w_minus.detach(),
        batches=batches,
        options=EngineOptions(**options),
    )


def run_to_end(engine: Engine, max_steps: int = 200_000, block: int = 1000) -> None:
    while len(engine.running) and engine.step < max_steps:
        engine.advance(block)
    engine.stop()

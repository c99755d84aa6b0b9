"""What every contender trains: equal runs on one sparse-recovery problem, none of which ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, Problem, sparse

Advance = Callable[[int], Any]
"""Advances all runs of a contender by so many steps."""


@dataclass(frozen=True)
class Task:
    """R uniform networks on one problem with n rows and d columns."""

    n: int
    d: int
    runs: int
    alpha: float = 0.1
    beta: float = 0.9

    @property
    def gamma(self) -> float:
        """A step size at which such a problem is stable."""
        return 0.2 / (self.n + self.d)

    @cached_property
    def problem(self) -> Problem:
        """Three-sparse recovery from n Gaussian rows."""
        return sparse(self.n, self.d, 3, seed=0)

    def start(self) -> tuple[Tensor, Tensor]:
        """u_0 and v_0 of all runs, [R, d]; views of one row."""
        net = DiagonalLinearNet.uniform(self.d, self.alpha)
        u, v = (w.detach().expand(self.runs, -1) for w in (net.u, net.v))
        return u, v

    def engine(self, device: str = "cpu", **options: Any) -> Engine:
        """The engine on these runs."""
        net = DiagonalLinearNet.uniform(self.d, self.alpha)
        start = (w.detach().to(device).expand(self.runs, -1) for w in (net.w_plus, net.w_minus))
        gamma = torch.full((self.runs,), self.gamma, dtype=torch.float64, device=device)
        options = {"tol": 0.0, "divergence_bound": float("inf")} | options
        return Engine(
            self.problem.to(device),
            gamma,
            torch.full_like(gamma, self.beta),
            *start,
            options=EngineOptions(**options),
        )

"""The data in the scale in which a step is cheapest, laid out for the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from dln_momentum.problem import Problem

CHECK_EVERY = 10
"""Steps between two looks at the loss: a look costs as much as a pass at small n. Looks are at
the multiples of it, whatever the blocks, and a run ends at the look that finds it ended."""


@dataclass(frozen=True, eq=False)
class ScaledProblem:
    """The data for R runs whose iterates are stored as sqrt(gamma) w / 2 (see `State`)."""

    A: Tensor
    """X / sqrt(n), [n, d] or [R, n, d]"""
    target: Tensor
    """gamma y / sqrt(n), [R, n]"""
    gamma: Tensor
    """[R]"""
    beta: Tensor
    """[R]"""
    tol: float
    """a loss at or below it has converged"""
    divergence_bound: float
    """a loss above this many times the first has diverged"""
    layouts: dict[str, Any] = field(default_factory=dict)
    """what a kernel has made of A for itself, by a name of its choice"""

    @classmethod
    def of(
        cls, problem: Problem, gamma: Tensor, beta: Tensor, tol: float, divergence_bound: float
    ) -> ScaledProblem:
        """Scale a problem for runs with step sizes ``gamma`` [R]."""
        root = math.sqrt(problem.n)
        target = (gamma[:, None] * (problem.y / root)).contiguous()
        A = (problem.X / root).contiguous()
        if A.ndim == 3 and len(A) == 1:
            A = A[0]
        return cls(A, target, gamma, beta, tol, divergence_bound)

    @property
    def shared(self) -> bool:
        """Whether all runs have the same X."""
        return self.A.ndim == 2

    @cached_property
    def noise_scale(self) -> Tensor:
        """What label noise is times in the scale of ``target``, [R]."""
        return self.gamma / math.sqrt(self.target.shape[-1])

    @cached_property
    def transposed(self) -> Tensor:
        """A^T, stored contiguously."""
        return self.A.mT.contiguous()

    def loss(self, squared_norm: Tensor, runs: Tensor) -> Tensor:
        """The training loss of ``runs`` from the squared norm of their scaled residual."""
        return squared_norm / (2 * self.gamma[runs] ** 2)

"""The data in the scale in which a step is cheapest, laid out for the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine.family import SQUARED, Family
from dln_momentum.engine.problems import ProblemGroup
from dln_momentum.wide_rows import LARGE

CHECK_EVERY = 10
"""Steps between two checks of the loss: a check costs as much as a pass at small n. Checks are at
the multiples of it, whatever the blocks, and a run ends at the check that finds it ended."""


@dataclass(frozen=True, eq=False)
class ScaledProblem:
    """The data for R runs whose iterates are stored as sqrt(gamma) w / 2 (see `State`).

    The general kernels keep gamma out of the scale: it is 1 in all formulas below.
    """

    X: Tensor
    """the data, [n, d] or [M, n, d]"""
    matrix: Tensor
    """which of the M matrices each of the R runs has, [R] int64; not read if there is one"""
    target: Tensor
    """gamma y / sqrt(n), [R, n]; the labels themselves for a loss of labels"""
    gamma: Tensor
    """[R]"""
    beta: Tensor
    """[R]"""
    tol: float
    """a loss at or below it has converged"""
    divergence_bound: float
    """a loss above this many times the first has diverged"""
    family: Family | None = None
    """what the general kernels advance; None for the poster's method"""
    kappa: Tensor | None = None
    """the rates of the coordinates, [d], which X is multiplied by"""
    layouts: dict[str, Any] = field(default_factory=dict)
    """what a kernel has made of A for itself, by a name of its choice"""

    @classmethod
    def of(
        cls,
        groups: Sequence[ProblemGroup],
        gamma: Tensor,
        beta: Tensor,
        tol: float,
        divergence_bound: float,
        family: Family | None = None,
        kappa: Tensor | None = None,
    ) -> list[ScaledProblem]:
        """Scale the problem of each group; what belongs to a run, [R, ...], all of them share.

        With steps kappa_i gamma_k, X diag(kappa) is the matrix of theta/kappa, which is that of
        the iterates w/sqrt(kappa), and has the step gamma_k in every coordinate.
        """
        labels = family is not None and family.loss != SQUARED
        n = groups[0].problem.n
        root, target = math.sqrt(n), gamma.new_empty(len(gamma), n)
        matrix = torch.zeros(len(gamma), dtype=torch.int64, device=gamma.device)
        found = []
        for problem, runs in ((group.problem, group.places) for group in groups):
            target[runs] = problem.y if labels else gamma[runs, None] * (problem.y / root)
            X = problem.X[0] if problem.X.ndim == 3 and len(problem.X) == 1 else problem.X
            if X.ndim == 3:
                matrix[runs] = torch.arange(len(X), device=gamma.device)
            found.append(cls(X, matrix, target, gamma, beta, tol, divergence_bound, family, kappa))
        return found

    @property
    def shared(self) -> bool:
        """Whether the runs of the group have the same X."""
        return self.X.ndim == 2

    @property
    def root(self) -> float:
        """sqrt(n)."""
        return math.sqrt(self.X.shape[-2])

    @cached_property
    def A(self) -> Tensor:  # noqa: N802
        """X/sqrt(n), [n, d] or [M, n, d]; a kernel that lays X out for itself does without it."""
        A = (self.X / self.root).contiguous()
        return A if self.kappa is None else A * self.kappa

    @property
    def to_lay_out(self) -> tuple[Tensor, float]:
        """A matrix [n, d] that all runs share, and the number that it is to be divided by for A."""
        if self.kappa is None:
            return self.X.contiguous(), self.root
        return self.A, 1.0

    def summed_gradients(self, residual_sum: Tensor, runs: Tensor | slice) -> Tensor:
        """X^T/sqrt(n) times the summed residuals of some runs, [R, n]; [R, d]."""
        if not self.shared:
            return (residual_sum.unsqueeze(1) @ self.A[self.matrix[runs]]).squeeze(1)
        if self.kappa is None and self.X.numel() >= LARGE:  # no copy of X for this
            return (residual_sum / self.root) @ self.X
        return residual_sum @ self.A

    @cached_property
    def noise_scale(self) -> Tensor:
        """What label noise is times in the scale of ``target``, [R]."""
        return self.gamma / math.sqrt(self.target.shape[-1])

    @cached_property
    def transposed(self) -> Tensor:
        """A^T, stored contiguously."""
        return self.A.mT.contiguous()

    def give_back(self) -> None:
        """Forget the copies of a large X, which are made again where they are asked for."""
        self.layouts.clear()
        if self.X.numel() >= LARGE:
            for name in ("A", "transposed"):
                vars(self).pop(name, None)

    def loss(self, squared_norm: Tensor, runs: Tensor) -> Tensor:
        """The training loss of ``runs`` from the squared norm of their scaled residual."""
        return squared_norm / (2 * self.gamma[runs] ** 2)

"""The workspace of a kernel: some of the runs, gathered, advanced and put back.

Gathering is what lets finished runs leave (they are not gathered any more) and what keeps the
working set inside the cache. It copies each row once a block, nothing against a block's steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.engine.state import State
from dln_momentum.problem import Problem

CHECK_EVERY = 10
"""Steps between two looks at the loss and the signs: a look costs as much as a pass at small n."""


@dataclass
class Tile:
    """R_t runs side by side, all at the same step; the kernels change it in place."""

    A: Tensor
    """X / sqrt(n), [n, d] or [R_t, n, d]"""
    A_T: Tensor
    """its transpose, stored contiguously, [d, n] or [R_t, d, n]"""
    target: Tensor
    """gamma y / sqrt(n), [R_t, n]"""
    beta: Tensor
    """[R_t]"""
    tol: Tensor
    """the tolerance on the loss, in the scale of the squared residual norm, [R_t]"""
    step: int
    """the step all these runs are at"""
    w: Tensor
    p: Tensor
    residual_sum: Tensor
    sign_changes: Tensor
    reached_tol: Tensor
    path_sums: Tensor | None
    increment_products: Tensor | None

    @property
    def audit(self) -> bool:
        """Whether S_+- and the increment products are summed directly at every step."""
        return self.path_sums is not None

    def residual(self, w: Tensor | None = None) -> Tensor:
        """gamma (X theta - y)/sqrt(n) at ``w``, [R_t, n]."""
        w = self.w if w is None else w
        scaled_theta = w[0].square().addcmul_(w[1], w[1], value=-1)
        if self.A.ndim == 2:
            return torch.addmm(self.target, scaled_theta, self.A_T, beta=-1)
        return (scaled_theta.unsqueeze(1) @ self.A_T).squeeze(1).sub_(self.target)


@dataclass(frozen=True)
class ScaledProblem:
    """The data in the engine's scale, shared by the tiles."""

    A: Tensor
    A_T: Tensor
    target: Tensor
    """gamma y / sqrt(n), [R, n]"""
    gamma: Tensor
    beta: Tensor
    n: int

    @classmethod
    def of(cls, problem: Problem, gamma: Tensor, beta: Tensor) -> ScaledProblem:
        """Scale a problem for runs with step sizes ``gamma`` [R]."""
        A = (problem.X / math.sqrt(problem.n)).contiguous()
        target = gamma[:, None] * problem.y / math.sqrt(problem.n)
        return cls(A, A.mT.contiguous(), target, gamma, beta, problem.n)

    def gather(self, state: State, runs: Tensor, tol: float) -> Tile:
        """Copy the rows of ``runs`` [R_t] into a tile."""
        shared = self.A.ndim == 2
        audit = state.path_sums is not None
        return Tile(
            A=self.A if shared else self.A[runs],
            A_T=self.A_T if shared else self.A_T[runs],
            target=self.target[runs],
            beta=self.beta[runs],
            # loss = |residual|^2 / (2 gamma^2) in this scale
            tol=2 * self.gamma[runs] ** 2 * tol,
            step=int(state.steps[runs[0]]),
            w=state.w[:, runs],
            p=state.p[:, runs],
            residual_sum=state.residual_sum[runs],
            sign_changes=state.sign_changes[runs],
            reached_tol=state.reached_tol[runs],
            path_sums=state.path_sums[:, runs] if audit else None,
            increment_products=state.increment_products[runs] if audit else None,
        )

    def scatter(self, tile: Tile, state: State, runs: Tensor) -> None:
        """Write an advanced tile back, with the loss where it has arrived."""
        state.w[:, runs] = tile.w
        state.p[:, runs] = tile.p
        state.residual_sum[runs] = tile.residual_sum
        state.sign_changes[runs] = tile.sign_changes
        state.reached_tol[runs] = tile.reached_tol
        if tile.path_sums is not None and state.path_sums is not None:
            state.path_sums[:, runs] = tile.path_sums
        if tile.increment_products is not None and state.increment_products is not None:
            state.increment_products[runs] = tile.increment_products
        state.steps[runs] = tile.step
        state.loss[runs] = tile.residual().square().sum(-1) / (2 * self.gamma[runs] ** 2)

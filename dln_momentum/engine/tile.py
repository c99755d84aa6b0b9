"""The runs that the torch kernel advances together: gathered, changed in place and put back.

It copies each row once a block, nothing against a block's steps, and leaves out runs that have
ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State


@dataclass
class Tile:
    """R_t runs side by side, all at the same step."""

    A: Tensor
    """X / sqrt(n), [n, d] or [R_t, n, d]"""
    A_T: Tensor
    """its transpose, stored contiguously, [d, n] or [R_t, d, n]"""
    target: Tensor
    """gamma y / sqrt(n), [R_t, n]"""
    beta: Tensor
    """[R_t, 1]"""
    w: Tensor
    p: Tensor
    residual_sum: Tensor
    path_sums: Tensor | None
    telescoped: bool
    """whether ``path_sums`` is the telescoped sum"""
    increment_products: Tensor | None
    new_sign_changes: Tensor
    """sign changes of each entry, [2, R_t, d] uint8; summed into ``sign_changes`` now and then"""
    sign_changes: Tensor
    loss: Tensor
    """at the end of the run or of the steps, [R_t]"""
    status: Tensor
    steps: Tensor
    """steps taken when the run ended, [R_t]"""

    @classmethod
    def gather(cls, scaled: ScaledProblem, state: State, runs: Tensor) -> Tile:
        """Copy the rows of ``runs`` [R_t]."""
        w = state.w[:, runs]
        sums, products = state.path_sums, state.increment_products
        return cls(
            A=scaled.A if scaled.shared else scaled.A[scaled.matrix[runs]],
            A_T=scaled.transposed if scaled.shared else scaled.transposed[scaled.matrix[runs]],
            target=scaled.target[runs],
            beta=scaled.beta[runs, None],
            w=w,
            p=state.p[:, runs],
            residual_sum=state.residual_sum[runs],
            path_sums=None if sums is None else sums[:, runs],
            telescoped=state.summed_until is not None,
            increment_products=None if products is None else products[runs],
            new_sign_changes=torch.zeros_like(w, dtype=torch.uint8),
            sign_changes=state.sign_changes[runs],
            loss=state.loss[runs],
            status=state.status[runs],
            steps=state.steps[runs],
        )

    def rows(self) -> list[tuple[Tensor, int]]:
        """What a run is made of, and the axis of the runs in each."""
        found = [(self.w, 1), (self.p, 1), (self.residual_sum, 0), (self.sign_changes, 0)]
        if self.path_sums is not None and self.increment_products is not None:
            found += [(self.path_sums, 1), (self.increment_products, 0)]
        return found

    def scatter(self, state: State, runs: Tensor) -> None:
        """Write the rows back."""
        for place, (rows, axis) in zip(self.kept(state), self.rows(), strict=True):
            if place is not None:
                place.index_copy_(axis, runs, rows)
        state.loss[runs], state.status[runs], state.steps[runs] = self.loss, self.status, self.steps

    def kept(self, state: State) -> list[Tensor | None]:
        """Where the rows belong."""
        found = [state.w, state.p, state.residual_sum, state.sign_changes]
        if state.path_sums is not None and state.increment_products is not None:
            found += [state.path_sums, state.increment_products]
        return [*found]

    def residual_into(self, residual: Tensor, theta: Tensor) -> None:
        """gamma (X theta - y)/sqrt(n), [R_t, n], of the scaled theta [R_t, d]."""
        if self.A.ndim == 2:
            torch.addmm(self.target, theta, self.A_T, beta=-1, out=residual)
        else:
            torch.bmm(theta.unsqueeze(1), self.A_T, out=residual.unsqueeze(1))
            residual.sub_(self.target)

    def gradient_into(self, gradient: Tensor, residual: Tensor) -> None:
        """gamma g, [R_t, d]."""
        if self.A.ndim == 2:
            torch.mm(residual, self.A, out=gradient)
        else:
            torch.bmm(residual.unsqueeze(1), self.A, out=gradient.unsqueeze(1))

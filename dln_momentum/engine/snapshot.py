"""Every run at one step, in the poster's variables: what monitors, tables and files read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.implicit_bias import (
    asymptotic_balancedness,
    log_init,
    path_sums_from_gradients,
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """R runs after ``step`` steps. Index 0 of a stacked axis is w_+ (or S_+), index 1 w_-.

    It reads out and derives; it holds no reference to the engine's memory.
    """

    step: int
    gamma: Tensor
    """[R, 1]"""
    beta: Tensor
    """[R, 1]"""
    w_start: Tensor
    """w_+-,0, [2, R, d]"""
    w: Tensor
    """w_+- now, [2, R, d]"""
    boundary: Tensor
    """beta/(1-beta) (1 - w_{k-1}/w_k), the boundary term of the path sums, [2, R, d]"""
    gradient_sum: Tensor
    """sum of the batch gradients so far, [R, d]"""
    direct_path_sums: Tensor | None
    """S_+- summed by definition at every step, [2, R, d]; None unless audited"""
    increment_products: Tensor | None
    """sum of dw_+ dw_-, [R, d]; None unless audited"""
    loss: Tensor
    """training loss, [R]"""
    sign_changes: Tensor
    """sign changes of the entries of w_+- so far, [R]"""
    reached_tol: Tensor
    """first step seen at or below the tolerance, -1 before, [R]"""
    steps: Tensor
    """steps taken by each run, [R]"""
    status: Tensor
    """`Status` as int64, [R]"""

    @property
    def eps(self) -> Tensor:
        """gamma/(1-beta), [R, 1]."""
        return self.gamma / (1 - self.beta)

    @cached_property
    def theta(self) -> Tensor:
        """theta = (w_+^2 - w_-^2)/4, [R, d]."""
        return (self.w[0] - self.w[1]) * (self.w[0] + self.w[1]) / 4

    @cached_property
    def theta_start(self) -> Tensor:
        """theta_0, [R, d]."""
        return (self.w_start[0] - self.w_start[1]) * (self.w_start[0] + self.w_start[1]) / 4

    @property
    def u(self) -> Tensor:
        """u = (w_+ + w_-)/2, [R, d]."""
        return (self.w[0] + self.w[1]) / 2

    @property
    def v(self) -> Tensor:
        """v = (w_+ - w_-)/2, [R, d]."""
        return (self.w[0] - self.w[1]) / 2

    @cached_property
    def balancedness(self) -> Tensor:
        """Delta_k = |w_+ w_-|, [R, d]."""
        return (self.w[0] * self.w[1]).abs()

    @cached_property
    def balancedness_start(self) -> Tensor:
        """Delta_0, [R, d]."""
        return (self.w_start[0] * self.w_start[1]).abs()

    @cached_property
    def previous(self) -> Tensor:
        """w_{k-1}, [2, R, d], from the boundary term; w_k itself where beta = 0.

        Only beta times the increment is carried, so that this has an error of 1e-16 |w|/beta.
        """
        ratio = self.boundary * (1 - self.beta) / self.beta
        return torch.where(self.beta != 0, self.w * (1 - ratio), self.w)

    @cached_property
    def closed_form_path_sums(self) -> Tensor:
        """S_+- read off the gradient sum (the finite-step identity), [2, R, d]."""
        signs = ((0, 1), (1, -1))
        return torch.stack(
            [
                path_sums_from_gradients(
                    self.w_start[i], self.w[i], self.boundary[i], self.gradient_sum, self.eps, sign
                )
                for i, sign in signs
            ]
        )

    @property
    def path_sums(self) -> Tensor:
        """S_+-, [2, R, d]: the direct sum where it was carried, else the closed form."""
        direct = self.direct_path_sums
        return self.closed_form_path_sums if direct is None else direct

    @cached_property
    def kept_path_sums(self) -> Tensor:
        """S~_+- = S_+- with the boundary term kept, for which the theorem holds at every step."""
        return self.path_sums + self.boundary

    @cached_property
    def log_init(self) -> Tensor:
        """c = arcsinh(2 theta~_0/Delta_k) of this step's perturbed initialisation, [R, d]."""
        return log_init(*self.w_start.unbind(), *self.kept_path_sums.unbind())

    @cached_property
    def predicted_balancedness(self) -> Tensor:
        """Delta_0 exp(-(S~_+ + S~_-)), which the theory says is Delta_k, [R, d]."""
        return asymptotic_balancedness(self.balancedness_start, *self.kept_path_sums.unbind())

    @cached_property
    def limit_balancedness(self) -> Tensor:
        """Delta_0 exp(-(S_+ + S_-)), which tends to Delta_inf as the run converges, [R, d]."""
        return asymptotic_balancedness(self.balancedness_start, *self.path_sums.unbind())

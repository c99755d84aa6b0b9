"""Every run at one step, in the poster's variables: what monitors, tables and files read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.engine.status import Status
from dln_momentum.rates import eps_of
from dln_momentum.theory.discrete_bias import (
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
    """w_+- at the start, w_1, [2, R, d]"""
    w: Tensor
    """w_+- now, [2, R, d]"""
    boundary: Tensor
    """beta/(1-beta) (1 - w_{k-1}/w_k), the boundary term of the path sums, [2, R, d]"""
    speed_term: Tensor | None
    """beta/(1-beta) (1 - w_0/w_1), which the initial speed takes from S_+-, [2, R, d], if any"""
    gradient_sum: Tensor
    """sum of the batch gradients so far, [R, d]"""
    path_sums_from_iterates: Tensor | None
    """S_+- summed from the iterates, [2, R, d]; None if it is only known from the gradients"""
    increment_products: Tensor | None
    """sum of dw_+ dw_-, [R, d]; None if it was not summed"""
    loss: Tensor
    """training loss, [R]"""
    sign_changes: Tensor
    """sign changes of the entries of w_+- so far, [R]"""
    steps: Tensor
    """steps taken by each run, [R]"""
    status: Tensor
    """`Status` as int64, [R]"""

    @property
    def eps(self) -> Tensor:
        """gamma/(1-beta), [R, 1]."""
        return eps_of(self.gamma, self.beta)

    @property
    def steps_to_tol(self) -> Tensor:
        """Steps to a training loss at or below the tolerance, [R]; -1 where it was not reached."""
        return torch.where(self.status == Status.CONVERGED, self.steps, -1)

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

    @property
    def initial_increment(self) -> Tensor | None:
        """w_1 - w_0, [2, R, d], from the term of the initial speed; None at rest.

        It is 0 where beta is, since nothing depends on it there.
        """
        if self.speed_term is None:
            return None
        ratio = self.speed_term * (1 - self.beta) / self.beta
        return torch.where(self.beta != 0, self.w_start * ratio, 0.0)

    @cached_property
    def path_sums_from_gradients(self) -> Tensor:
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
    def certifies(self) -> bool:
        """Whether S_+- was summed from the iterates, so that a fault of the run would show.

        Read off the gradients, S_+- satisfies by its own construction what the theorem says of
        it, whatever the iterates are.
        """
        return self.path_sums_from_iterates is not None

    @property
    def path_sums(self) -> Tensor:
        """S_+-, [2, R, d]: from the iterates if it was summed, else from the gradients."""
        summed = self.path_sums_from_iterates
        return self.path_sums_from_gradients if summed is None else summed

    @cached_property
    def path_sums_with_boundary(self) -> Tensor:
        """S~_+- = S_+- with the boundary term kept, for which the theorem holds at every step."""
        return self.path_sums + self.boundary

    @cached_property
    def log_init(self) -> Tensor:
        """c = arcsinh(2 theta~_0/Delta_k) of this step's perturbed initialisation, [R, d]."""
        return log_init(*self.w_start.unbind(), *self.path_sums_with_boundary.unbind())

    @cached_property
    def predicted_balancedness(self) -> Tensor:
        """Delta_0 exp(-(S~_+ + S~_-)), which the theory says is Delta_k, [R, d]."""
        return asymptotic_balancedness(
            self.balancedness_start, *self.path_sums_with_boundary.unbind()
        )

    @cached_property
    def limit_balancedness(self) -> Tensor:
        """Delta_0 exp(-(S_+ + S_-)), which tends to Delta_inf as the run converges, [R, d]."""
        return asymptotic_balancedness(self.balancedness_start, *self.path_sums.unbind())

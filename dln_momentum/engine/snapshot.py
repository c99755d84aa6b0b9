"""R runs at one step, in the poster's variables: read by monitors, tables and files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.arrays import short_repr
from dln_momentum.engine.status import Status
from dln_momentum.rates import eps_of
from dln_momentum.theory.curvature import sharpness_threshold
from dln_momentum.theory.discrete_bias import path_sums_from_gradients
from dln_momentum.theory.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Snapshot(Trajectory):
    """R runs after ``step`` steps: a `Trajectory` with S_+- for the exponents, [2, R, d].

    It holds no reference to the engine's memory.
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

    __repr__ = short_repr

    @property
    def eps(self) -> Tensor:
        """gamma/(1-beta), [R, 1]."""
        return eps_of(self.gamma, self.beta)

    @property
    def threshold(self) -> Tensor:
        """2 (1 + beta)/gamma: sharper quadratics are unstable, [R, 1]."""
        return sharpness_threshold(self.gamma, self.beta)

    @property
    def steps_to_tol(self) -> Tensor:
        """Steps to a training loss at or below the tolerance, [R]; -1 where it was not reached."""
        return torch.where(self.status == Status.CONVERGED, self.steps, -1)

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
        found = [
            path_sums_from_gradients(w_start, w, boundary, self.gradient_sum, self.eps, sign)
            for w_start, w, boundary, sign in zip(
                self.w_start, self.w, self.boundary, (1, -1), strict=True
            )
        ]
        return torch.stack(found)

    @property
    def certifies(self) -> bool:
        """Whether S_+- was summed from the iterates, so that a fault of the run would show.

        S_+- from the gradient sum satisfies the theorem by construction, for any iterates.
        """
        return self.path_sums_from_iterates is not None

    @property
    def path_sums(self) -> Tensor:
        """S_+-, [2, R, d]: from the iterates if it was summed, else from the gradients."""
        summed = self.path_sums_from_iterates
        return self.path_sums_from_gradients if summed is None else summed

    @property
    def exponents(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S_+- as `path_sums` has it; the initial-speed term is already subtracted."""
        return self.path_sums

    @property
    def start_term(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """0: it is subtracted in `path_sums`."""
        return self.w.new_zeros(())

    @property
    def path_sums_with_boundary(self) -> Tensor:
        """S~_+- = S_+- + boundary term, for which the theorem holds at every step, [2, R, d]."""
        return self.exponents_with_boundary

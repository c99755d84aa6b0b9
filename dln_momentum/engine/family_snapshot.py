"""R runs of any member of the family at one step, in the variables of the theorem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.problem import Problem
from dln_momentum.row_space import RowSpace
from dln_momentum.theory.coordinate_rates import scaled_rows


@dataclass(frozen=True, eq=False)
class FamilySnapshot(Snapshot):
    """A `Snapshot` whose S_+- has the weights p_k of its horizon, p_K = 1.

    (docs/theory.md#schedules; not on the poster.)

        ln|w_{+-,K+1}/w_{+-,1}| = -+ sum_k p_k gamma_k g_k - decay - S_+-

    There is no boundary term, and S_+- has the term of the initial speed. w are the weighted
    variables where the layers have different rates; `u` and `v` undo it.
    """

    weighted_gradient_sum: Tensor
    """sum_k p_k gamma_k g_k, with kappa in each coordinate, [R, d]"""
    decay: Tensor
    """sum_k p_k gamma_k omega_k if coupled, -sum_k ln(1 - eta_k) if decoupled, [R, 1]"""
    increment: Tensor
    """w_k - w_{k-1} without what decoupled decay took, [2, R, d]"""
    ahead: Tensor
    """z_k of Nesterov, at which its gradient is taken; w itself of heavy ball, [2, R, d]"""
    layer_ratio: Tensor
    """gamma_v/gamma_u, [R, 1]"""
    kappa: Tensor | None
    """the rates of the coordinates, [d]"""
    last_threshold: Tensor
    """`threshold` of the last step, in w/sqrt(kappa), [R, 1]"""

    @property
    def u(self) -> Tensor:
        """First layer, from w_+- = (gamma_v/gamma_u)^(1/4) u +- (gamma_u/gamma_v)^(1/4) v."""
        return super().u / self.layer_ratio**0.25

    @property
    def v(self) -> Tensor:
        """Second layer."""
        return super().v * self.layer_ratio**0.25

    @property
    def threshold(self) -> Tensor:
        """The sharpness above which the last step is unstable on a quadratic, [R, 1]."""
        return self.last_threshold

    @property
    def balancedness_factor(self) -> Tensor:
        """What weight decay multiplies the balancedness by, exp(-2 decay), [R, 1]."""
        return torch.exp(-2 * self.decay)

    @cached_property
    def previous(self) -> Tensor:
        """w_{k-1}, [2, R, d]; of decoupled decay (1 - eta_{k-1}) w_{k-1}."""
        return self.w - self.increment

    @cached_property
    def path_sums_from_gradients(self) -> Tensor:
        """S_+- from the gradients, [2, R, d]: the identity above."""
        signed = torch.stack([self.weighted_gradient_sum, -self.weighted_gradient_sum])
        return -signed - self.decay - torch.log((self.w / self.w_start).abs())

    def _balancedness_from(self, exponents: Tensor) -> Tensor:
        """Delta_0 exp(-(S_+ + S_-)) times the factor of the decay, [R, d]."""
        # in one exponent: the factor alone may underflow where the sums alone overflow
        return super()._balancedness_from(exponents + self.decay)

    def _row_space(self, problem: Problem) -> RowSpace:
        """With rates of the coordinates, the span of the rows of X diag(kappa)."""
        if self.kappa is None:
            return problem.row_space
        return RowSpace.of(scaled_rows(problem.X, self.kappa))

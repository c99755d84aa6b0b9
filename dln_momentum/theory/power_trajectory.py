r"""The formulas of a trajectory at depth D > 2: theta, A, c and the certificate.

The counterpart of `dln_momentum.theory.trajectory.Trajectory` for theta = u^D - v^D, with layers
u, v > 0 in the place of w_+- (docs/theory.md#depth; not on the poster). With S_u, S_v summed with
the weights of the horizon there is no boundary term:

    u_t^(-m) + v_t^(-m) = 2 A,   h_A^{-1}(theta_t) - c in span(x_1..x_n).
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.theory.depth import (
    balancedness,
    is_power_potential,
    potential_scale,
    power_mirror,
)
from dln_momentum.theory.discrete_bias import relative_distance
from dln_momentum.theory.trajectory import Trajectory

RESOLVED = 0.01
"""The part of z = h_A^{-1}(theta) - c that the rounding of u and v may make where it is judged."""


def power_theta(w: Tensor, depth: Tensor | float) -> Tensor:
    """theta = u^D - v^D from w = (u, v), [2, ..., d] -> [..., d].

    >>> power_theta(torch.tensor([[2.0], [1.0]]), 3.0)
    tensor([7.])
    """
    return w[0] ** depth - w[1] ** depth


def layer_scale(w: Tensor, depth: Tensor | float) -> Tensor:
    """A = (u^(-m) + v^(-m))/2 of the layers themselves, [2, ..., d] -> [..., d].

    >>> layer_scale(torch.tensor([[0.5], [0.25]]), 3.0)
    tensor([3.])
    """
    m = depth - 2
    return (w[0] ** -m + w[1] ** -m) / 2


class PowerTrajectory(Trajectory):
    """Layers u, v > 0 of theta = u^D - v^D with their start and path sums, at one time or many.

    Attributes:
        w: (u, v), [2, ..., d], and w_start, (u_1, v_1).
        exponents: S_u and S_v, [2, ..., d], with the term of an initial speed subtracted.
        depth: D > 2, a number or [..., 1].
        additions: to u and v so far, each rounded, a number or [..., 1].
    """

    depth: Tensor | float
    additions: Tensor | float = 1.0
    boundary: Tensor = torch.zeros((), dtype=torch.float64)
    start_term: Tensor = torch.zeros((), dtype=torch.float64)

    @property
    def u(self) -> Tensor:
        """First layer."""
        return self.w[0]

    @property
    def v(self) -> Tensor:
        """Second layer."""
        return self.w[1]

    @cached_property
    def theta(self) -> Tensor:
        """Predictor, theta = u^D - v^D."""
        return power_theta(self.w, self.depth)

    @cached_property
    def theta_start(self) -> Tensor:
        """theta at the start."""
        return power_theta(self.w_start, self.depth)

    @cached_property
    def scale(self) -> Tensor:
        """A = (u^(-m) + v^(-m))/2 of the layers."""
        return layer_scale(self.w, self.depth)

    @cached_property
    def balancedness(self) -> Tensor:
        """Delta = 4 A^(-2/m), which is |u^2 - v^2| of theta = u v as D -> 2."""
        return balancedness(self.scale, self.depth)

    @cached_property
    def balancedness_start(self) -> Tensor:
        """Delta at the start."""
        return balancedness(layer_scale(self.w_start, self.depth), self.depth)

    @cached_property
    def predicted_scale(self) -> Tensor:
        """A from the start and the path sums, equal to `scale` in theory, [..., d]."""
        return self._potential_from(self.exponents_with_boundary)[0]

    def _balancedness_from(self, exponents: Tensor) -> Tensor:
        return balancedness(self._potential_from(exponents)[0], self.depth)

    def _log_init_from(self, exponents: Tensor) -> Tensor:
        """c, |c| < A, of the perturbed initialisation theta~ = h_A(c)."""
        return self._potential_from(exponents)[1]

    def _potential_from(self, exponents: Tensor) -> tuple[Tensor, Tensor]:
        """A and c that exponents [2, ..., d] make of the start."""
        return potential_scale(self.w_start, exponents, self.depth)

    @cached_property
    def is_valid(self) -> Tensor:
        """Where the predicted potential is valid: 0 < A < inf and |c| < A, and u, v > 0, [...]."""
        positive = (self.w > 0).all(0).all(-1)
        return positive & is_power_potential(self.predicted_scale, self.log_init)

    def certificate(self, problem: Problem) -> Tensor:
        """The KKT residual of theta at each time, [...].

        It is nan where the potential is not valid, and where the path has moved less than a hundred
        times the rounding of its steps: an increment below the last digit of u is lost, so that
        deep layers from a small start stand still in float64, and their residual says nothing.
        """
        valid = self.is_valid[..., None]
        theta, c = (torch.where(valid, x, 0.0) for x in (self.theta, self.log_init))
        scale = torch.where(valid, self.predicted_scale, 1.0)
        powers = (self.w.abs() ** self.depth).sum(0)
        # each step may lose half of the last digit, always in the same direction
        blur = self.depth * self.additions * torch.finfo(theta.dtype).eps / 2 * powers
        at, above = (power_mirror(x, scale, self.depth) for x in (theta, theta + blur))
        residual = relative_distance(problem.row_space, at, c)
        rounding, moved = (torch.linalg.vector_norm(x, dim=-1) for x in (above - at, at - c))
        judged = self.is_valid & ((residual == 0) | (rounding <= RESOLVED * moved))
        return torch.where(judged, residual, torch.nan)

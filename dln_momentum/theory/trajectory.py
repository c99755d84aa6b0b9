r"""The formulas of a trajectory: theta, Delta, the predicted Delta, c and the certificate.

One class for runs and flows, for one time or many: `dln_momentum.engine.Snapshot` holds R runs at
one step, `dln_momentum.flows.trajectory.RecordedTrajectory` one run or one flow at T times.

Discrete and continuous time differ in the exponents alone. With X_+- for S_+- or I_+-
(docs/theory.md#discrete-bias, docs/theory.md#continuous-bias; poster, sections 4 and 6),

    X~_{+-,t} = X_{+-,t} + boundary_{+-,t} - start_+-,
    |w_{+-,t}| = |w_{+-,0}| exp(-+g_t - X~_{+-,t}),

where g_t lies in the row space, boundary is lambda w'_t/w_t or beta/(1-beta) (1 - w_{k-1}/w_k), and
start is the same at the start, zero from rest. The boundary term vanishes at convergence.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.row_space import RowSpace
from dln_momentum.theory.discrete_bias import (
    Pair,
    asymptotic_balancedness,
    is_potential,
    kkt_residual,
    log_init,
)


def theta_of(w: Pair) -> Tensor:
    """theta = (w_+^2 - w_-^2)/4 = u v from w = (w_+, w_-), [2, ..., d] -> [..., d].

    >>> theta_of(torch.tensor([[3.0], [1.0]]))
    tensor([2.])
    """
    return (w[0] - w[1]) * (w[0] + w[1]) / 4


def balancedness_of(w: Pair) -> Tensor:
    """Delta = |u^2 - v^2| = |w_+ w_-| from w = (w_+, w_-), [2, ..., d] -> [..., d].

    >>> balancedness_of(torch.tensor([[3.0], [-1.0]]))
    tensor([3.])
    """
    return (w[0] * w[1]).abs()


class Weights:
    """w = (w_+, w_-), stacked [2, ..., d], and what follows from w alone, [..., d]."""

    w: Tensor

    @property
    def w_plus(self) -> Tensor:
        """w_+ = u + v."""
        return self.w[0]

    @property
    def w_minus(self) -> Tensor:
        """w_- = u - v."""
        return self.w[1]

    @property
    def u(self) -> Tensor:
        """First layer, u = (w_+ + w_-)/2."""
        return (self.w[0] + self.w[1]) / 2

    @property
    def v(self) -> Tensor:
        """Second layer, v = (w_+ - w_-)/2."""
        return (self.w[0] - self.w[1]) / 2

    @cached_property
    def theta(self) -> Tensor:
        """Predictor, theta = (w_+^2 - w_-^2)/4."""
        return theta_of(self.w)

    @cached_property
    def balancedness(self) -> Tensor:
        """Delta = |w_+ w_-|."""
        return balancedness_of(self.w)


class Trajectory(Weights):
    """Weights with their start and the exponents that shrink |w_+-|, at one time or many.

    Index 0 of the leading axis of 2 is w_+, index 1 is w_-. A subclass supplies the attributes;
    ``...`` is [T] of one trajectory at T times, or [R] of R runs.

    Attributes:
        w: w_+- at these times, [2, ..., d].
        w_start: w_+- at the start, [2, d], or [2, R, d].
        exponents: S_+- or I_+-, [2, ..., d].
        boundary: the boundary terms, [2, ..., d].
        start_term: the boundary term at the start, broadcastable; 0 where `exponents` has it
            subtracted already.
    """

    w_start: Tensor
    exponents: Tensor
    boundary: Tensor
    start_term: Tensor

    @cached_property
    def theta_start(self) -> Tensor:
        """theta_0."""
        return theta_of(self.w_start)

    @cached_property
    def balancedness_start(self) -> Tensor:
        """Delta_0."""
        return balancedness_of(self.w_start)

    @cached_property
    def exponents_with_boundary(self) -> Tensor:
        """X~: the exponents with both boundary terms, exact before any convergence, [2, ..., d]."""
        return self.exponents + self.boundary - self.start_term

    @cached_property
    def predicted_balancedness(self) -> Tensor:
        """Delta_0 exp(-(X~_+ + X~_-)), equal to Delta in theory, [..., d]."""
        return self._balancedness_from(self.exponents_with_boundary)

    @cached_property
    def log_init(self) -> Tensor:
        """c = arcsinh(2 theta~/Delta) of the perturbed initialisation at each time, [..., d]."""
        return self._log_init_from(self.exponents_with_boundary)

    @cached_property
    def limit_balancedness(self) -> Tensor:
        """Delta_0 exp(-(X_+ + X_-)), tends to Delta_inf as the trajectory converges, [..., d]."""
        return self._balancedness_from(self.exponents - self.start_term)

    @cached_property
    def limit_log_init(self) -> Tensor:
        """c of theta~_0 without the boundary term, which tends to its limit, [..., d]."""
        return self._log_init_from(self.exponents - self.start_term)

    @cached_property
    def is_valid(self) -> Tensor:
        """Where the predicted potential is valid: 0 < Delta < inf and c finite, [...]."""
        return is_potential(self.predicted_balancedness, self.log_init)

    def certificate(self, problem: Problem) -> Tensor:
        """The KKT residual of theta at each time, [...]; nan where the potential is not valid."""
        theta, delta, c = (
            torch.where(self.is_valid[..., None], x, 1.0)
            for x in (self.theta, self.predicted_balancedness, self.log_init)
        )
        residual = kkt_residual(self._row_space(problem), theta, delta, c)
        return torch.where(self.is_valid, residual, torch.nan)

    def _balancedness_from(self, exponents: Tensor) -> Tensor:
        """Delta that exponents [2, ..., d] make of the start."""
        return asymptotic_balancedness(self.balancedness_start, *exponents)

    def _log_init_from(self, exponents: Tensor) -> Tensor:
        """c that exponents [2, ..., d] make of the start."""
        return log_init(*self.w_start, *exponents)

    def _row_space(self, problem: Problem) -> RowSpace:
        """What arcsinh(2 theta/Delta) - c lies in."""
        return problem.row_space

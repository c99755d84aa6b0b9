"""Leapfrog for many flows at once: each run of the engine is one flow, on a grid of times.

With P = w + lambda w', momentum gradient flow reads ``P_+-' = -+ grad L w_+-, lambda w' = P - w``.
With P half a step behind w, the scheme

    P_{k+1/2} = P_{k-1/2} -+ eps g_k w_k,
    lambda (w_{k+1} - w_k)/eps = P_{k+1/2} - (w_k + w_{k+1})/2

is exactly MGD(gamma, beta) with the gamma and beta for which lambda_KS(gamma, beta) = lambda:

    beta = (2 lambda - eps)/(2 lambda + eps),    gamma = 2 eps^2/(2 lambda + eps).

beta is negative for eps > 2 lambda, which is intended: lambda does not limit the step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.engine import Engine, EngineOptions, Status
from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of


class PhasePoint(NamedTuple):
    """Points of R flows in phase space, (w, P) with P = w + lambda w'.

    P is slow for every lambda, where w' is not for a small one.
    """

    values: Tensor
    """(w, P), each for + and -, [2, 2, R, d]"""
    G: Tensor
    """the integral of grad L so far, [R, d]"""

    @property
    def w(self) -> Tensor:
        """(w_+, w_-), [2, R, d]."""
        return self.values[0]

    @property
    def theta(self) -> Tensor:
        """(w_+^2 - w_-^2)/4, [R, d]."""
        return theta_of(self.w)

    def select(self, runs: Tensor) -> PhasePoint:
        """Some of the runs."""
        return PhasePoint(self.values[:, :, runs], self.G[runs])


def leapfrog(
    problem: Problem,
    lam: Tensor,
    start: PhasePoint,
    eps: Tensor,
    steps: int,
    options: EngineOptions,
) -> tuple[PhasePoint, Tensor]:
    """Take ``steps`` steps of size eps; the error has even powers of eps only.

    Time reversal maps the scheme onto itself with -eps in the place of eps. The half steps from
    P_0 to P_{-1/2} and from P_{K-1/2} to P_K, and the trapezoidal rule for G, keep that symmetry.

    Args:
        problem: the data of these runs.
        lam, eps: [R].
        start: the initial points.
        steps: at least 1.
        options: of the engine; its ``tol`` must be -inf and its ``divergence_bound`` infinite.

    Returns:
        The points after these steps, and the sign changes of each run, [R].
    """
    beta, drag = (2 * lam - eps) / (2 * lam + eps), 2 * eps / (2 * lam + eps)
    # at beta = 0 the engine would ignore w_{-1}; 1e-30 differs from 0 by less than rounding
    beta = torch.where(beta == 0, 1e-30, beta)
    gamma = 2 * eps * (eps / (2 * lam + eps))
    h = eps[:, None]
    gradient = problem.gradient(start.theta)
    behind = start.values[1] + h / 2 * _force(gradient, start.w)
    # P_{-1/2} = lambda (w_0 - w_{-1})/eps + (w_0 + w_{-1})/2, solved for w_{-1}; for a large lambda
    # 1 - beta has lost digits that drag = 1 - beta has, and with them the speed would
    before = start.w + (drag / beta)[:, None] * (start.w - behind)
    engine = Engine(
        problem, gamma, beta, *start.w.unbind(), previous=(before[0], before[1]), options=options
    )
    engine.advance(steps)
    end = engine.snapshot()
    if (lost := engine.state.status == Status.DIVERGED).any():
        # a run whose loss is not finite stopped before the last step: its point is not an end
        end.w[:, lost] = torch.nan
    last_gradient = problem.gradient(end.theta)
    # the engine's boundary term is lambda w'/w half a step behind, over its own 1 - beta
    speed = ((1 - beta) / drag)[:, None] * end.boundary
    P = end.w * (1 + speed) - h / 2 * _force(last_gradient, end.w)
    G = start.G + h * (end.gradient_sum + (last_gradient - gradient) / 2)
    return PhasePoint(torch.stack([end.w, P]), G), end.sign_changes


def _force(gradient: Tensor, w: Tensor) -> Tensor:
    """+-grad L w_+-, [2, R, d]."""
    return torch.stack([gradient * w[0], -gradient * w[1]])

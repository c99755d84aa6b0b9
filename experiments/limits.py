"""Limits of momentum flows and of gradient descent, many at once, by the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dln_momentum import Problem, Snapshot, Status
from dln_momentum.rates import gamma_beta
from dln_momentum.theory.discrete_bias import log_init
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments.common import engine_over


def follow_flows(
    problems: Sequence[Problem],
    lam: Tensor,
    alpha: Tensor,
    *,
    resolution: float,
    max_steps: int,
    **options: Any,
) -> Snapshot:
    """Follow MGF(lambda) of each problem, lambda and alpha to its end, by MGD.

    MGD with lambda_KS = lambda is the central-difference scheme of MGF(lambda), of second order in
    eps. Its eps is ``resolution`` times the smaller of 2 lambda (above which beta would be
    negative) and 2 sqrt(lambda/H), the bound of stability for a curvature H. lambda = 0 is gradient
    descent with gamma = resolution/H.

    Args:
        problems: R problems with theta_star, whose size tells the curvature at the end.
        lam, alpha: lambda >= 0 and the initialisation scale of each run, [R].
        resolution: in (0, 1).
        max_steps: when to give up.
        **options: of `EngineOptions`.
    """
    # each problem once, however many runs it has
    known = {id(problem): curvature(problem) for problem in {id(p): p for p in problems}.values()}
    sizes = torch.stack([known[id(problem)] for problem in problems])
    largest = sizes[:, 0] * (2 * sizes[:, 1] + 2 * alpha**2)
    eps = resolution * 2 * torch.minimum(lam, (lam / largest).sqrt())
    # lambda = lambda_KS + eps/2
    gamma, beta = gamma_beta(lam=lam + eps / 2, eps=eps)
    descent = lam == 0
    gamma = torch.where(descent, resolution / largest, gamma)
    beta = torch.where(descent, 0.0, beta)
    # limits take the theorem for granted, and the sums that it reads off the gradients cost least
    options = {"path_sums": "gradient_sum"} | options
    engine = engine_over(problems, gamma.numpy(), beta.numpy(), alpha.numpy(), **options)
    return engine.run(max_steps, block_size=min(1000, math.ceil(max_steps / 20)))


def limits(end: Snapshot, problem: Problem) -> Tensor:
    """theta_inf of the runs that converged to their tolerance, nan for the others, [R, d].

    It is the minimiser of D_{psi_{Delta_inf}}(., theta~_0) with the path sums so far: what is still
    missing from them is of the order of the loss, against its root for theta_K itself (at a loss of
    1e-6, 1e-7 against 1e-3). It takes the theorem
    for granted (docs/theory.md#discrete-limit; poster, section 6).
    """
    delta = end.limit_balancedness
    # after many sign changes Delta_inf may overflow
    usable = ((delta > 0) & delta.isfinite()).all(-1)
    converged = (usable & (end.status == int(Status.CONVERGED)))[:, None]
    c = log_init(*end.w_start.unbind(), *end.path_sums.unbind())
    solved = bregman_minimizer(
        problem.row_space,
        problem.row_space.target(problem.y),
        torch.where(converged, delta, 1.0),
        torch.where(converged, c, 0.0),
    )
    return torch.where(converged & solved.converged[:, None], solved.theta, torch.nan)


def minimizer(problem: Problem, balancedness: Tensor, c: Tensor) -> Tensor:
    """argmin D_{psi_Delta}(., theta~_0) over the interpolators; nan where it was not found."""
    target = problem.row_space.target(problem.y)
    found = bregman_minimizer(problem.row_space, target, balancedness, c)
    return torch.where(found.converged[..., None], found.theta, torch.nan)


def recovery_error(theta: Tensor, problem: Problem) -> Tensor:
    """||theta - theta*||_2."""
    assert problem.theta_star is not None
    return torch.linalg.vector_norm(theta - problem.theta_star, dim=-1)


def curvature(problem: Problem) -> Tensor:
    """The largest eigenvalue of X X^T/n, and max_i |theta*_i|."""
    assert problem.theta_star is not None
    largest = torch.linalg.eigvalsh(problem.X @ problem.X.mT / problem.n)[-1]
    return torch.stack([largest, problem.theta_star.abs().max()])

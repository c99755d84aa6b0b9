r"""The implicit bias of training on labels -1 and +1, exact at every step.

For the logistic or the exponential loss of separable data (docs/theory.md#other-losses; not on the
poster), with p_k the weights of the horizon K and Delta, c those of theta = theta_{K+1},

    arcsinh(2 theta/Delta) - c = 2 X^T nu,    nu = -sum_k p_k gamma_k r_k/n,    y_i nu_i >= 0,

where r_k are the (batch) weights of the rows in the gradient X^T r_k/n, whose sign is -y_i. So
theta minimises D_{psi_Delta}(., theta~) over all theta' whose margins are at least its own:

    theta = argmin { D_{psi_Delta}(theta', theta~) : y_i <x_i, theta'> >= y_i <x_i, theta> }.

The signs need p_k gamma_k >= 0 and r_k of one sign: momentum in [0, 1), and no label noise. Vectors
are [*runs, d] and [*runs, n].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any
from dln_momentum.problem import Problem
from dln_momentum.row_space import RowSpace, apply
from dln_momentum.theory.discrete_bias import relative_distance
from dln_momentum.theory.entropy import checked_balancedness, mirror_map
from dln_momentum.theory.minimizers import bregman_minimizer

_MOST_CHANGES = 10
"""Changes of the active set, for each row."""
_TINY = 1e-300
_SHORTFALL = 1e-12
"""Of a margin, over the largest, that counts as none."""
_IN_CONE = 1e-9
"""Relative distance from the cone that counts as rounding."""


def margins(problem: Problem, theta: Tensor) -> Tensor:
    """y_i <x_i, theta>, [*runs, n].

    >>> problem = Problem(X=[[1.0, 2.0]], y=[-1], loss="logistic")
    >>> margins(problem, torch.tensor([1.0, -2.0]))
    tensor([3.], dtype=torch.float64)
    """
    raise_if_any(classification_errors(problem))
    return problem.y * apply(problem.X, theta.to(problem.X.dtype))


def normalised_margin(problem: Problem, theta: Tensor, norm: float) -> Tensor:
    """min_i y_i <x_i, theta> / ||theta||, in the norm of this order, [*runs]; nan for theta = 0."""
    return margins(problem, theta).amin(-1) / torch.linalg.vector_norm(theta, ord=norm, dim=-1)


def classification_errors(problem: Problem) -> Iterator[str]:
    """An error for a problem of another kind."""
    if not problem.is_classification:
        yield (
            f"loss = {problem.loss_name!r} has no margins; problem.with_loss('logistic') is "
            "classification of the same rows"
        )


@dataclass(frozen=True)
class MarginCertificate:
    """Whether theta is the minimiser over all of margins at least its own."""

    residual: Tensor
    """||z outside span(x_1..x_n)|| / ||z|| of z = (arcsinh(2 theta/Delta) - c)/2, [*runs]"""
    sign_violation: Tensor
    """The distance of the rest of z from the cone of all X^T nu with y_i nu_i >= 0, over ||z||."""
    nu: Tensor
    """z = X^T nu with the right signs where there is one, else the nu of least norm, [*runs, n]"""


def margin_certificate(
    problem: Problem, theta: Tensor, balancedness: Tensor, log_init: Tensor
) -> MarginCertificate:
    """The two conditions of a minimiser under lower bounds on margins.

    Args:
        problem: classification.
        theta: predictor, [*runs, d].
        balancedness, log_init: Delta > 0 and c, [*runs, d].

    Raises:
        InputError: for a problem of another loss, or Delta that is not finite and positive.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[-1], loss="logistic")
    >>> theta = torch.sinh(torch.tensor([-0.5, -1.0], dtype=torch.float64)) / 2
    >>> found = margin_certificate(problem, theta, torch.ones(2), torch.zeros(2))
    >>> float(found.residual) < 1e-15, float(found.sign_violation), found.nu.round(decimals=6)
    (True, 0.0, tensor([-0.2500], dtype=torch.float64))
    >>> float(margin_certificate(problem, -theta, torch.ones(2), torch.zeros(2)).sign_violation)
    1.0
    """
    mirror, start = mirror_map(theta, balancedness), log_init / 2
    violation, nu = sign_violation(problem, mirror - start)
    return MarginCertificate(
        residual=relative_distance(problem.row_space, mirror, start),
        sign_violation=violation,
        nu=nu,
    )


def sign_violation(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """How far z in span(x_1..x_n) is from the cone of all X^T nu with y_i nu_i >= 0, and a nu.

    0 where the nu of least norm is in it; else least squares with nonnegative unknowns tells, for
    each run, since dependent rows have several nu.

    Args:
        problem: classification.
        z: [*runs, d]; what it has outside the span is not judged.

    Returns:
        The distance over ||z||, [*runs], nan where z is not finite; and nu, [*runs, n].
    """
    raise_if_any(classification_errors(problem))
    rows = problem.row_space
    inside = rows.project(z)
    # V^T V z = X^T nu with nu = (Sigma^-1 U^T)^T V z
    nu = apply(rows.to_target.mT, rows.coordinates(z))
    finite = z.isfinite().all(-1)
    wrong = (problem.y * nu < 0).any(-1) & finite
    distance = torch.where(finite, 0.0, torch.nan).to(z.dtype)
    if bool(wrong.any()):
        runs = wrong.shape
        Z = (problem.y[..., None] * problem.X).expand(*runs, problem.n, problem.d)[wrong]
        found = [_nearest_in_cone(*pair) for pair in zip(Z, inside[wrong], strict=True)]
        distance[wrong] = torch.stack([pair[0] for pair in found])
        near = torch.stack([pair[1] for pair in found])
        exact = torch.zeros_like(wrong)
        exact[wrong] = distance[wrong] <= _IN_CONE
        kept = distance[wrong] <= _IN_CONE
        nu[exact] = problem.y.expand(*runs, problem.n)[exact] * near[kept]
    return distance, nu


def _nearest_in_cone(Z: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """min ||Z^T mu - z|| over mu >= 0, over ||z||, and mu."""
    from scipy.optimize import nnls

    size = float(torch.linalg.vector_norm(z)) or 1.0
    mu, distance = nnls(Z.mT.cpu().numpy(), (z / size).cpu().numpy(), maxiter=100 * len(Z))
    found = torch.from_numpy(mu) * size
    return torch.tensor(distance).to(z), found.to(z)


@dataclass(frozen=True)
class MarginMinimizer:
    """The minimiser under lower bounds on margins, and how well it was found."""

    theta: Tensor
    """The minimiser, [d]."""
    nu: Tensor
    """y_i nu_i >= 0 with arcsinh(2 theta/Delta) = c + 2 X^T nu, [n]; 0 where a bound is slack."""
    shortfall: float
    """By how much a margin is below its bound, over the largest margin or bound."""
    converged: bool
    """Whether that is at most `_SHORTFALL`."""
    changes: int
    """How often a bound became active or slack."""


def margin_minimizer(
    problem: Problem, least_margins: Tensor, balancedness: Tensor, log_init: Tensor
) -> MarginMinimizer:
    r"""argmin { D_{psi_Delta}(theta, theta~) : y_i <x_i, theta> >= m_i }, for one run.

    (docs/theory.md#other-losses.) An active-set method on the dual, as Lawson and Hanson's for
    nonnegative least squares: with Z the rows y_i x_i,

    .. math:: \min_{\mu \ge 0} \sum_j \tfrac{\Delta_j}{2} \cosh(c_j + (Z^\top\mu)_j)
        - \langle\mu, m\rangle, \qquad \theta = \tfrac{\Delta}{2} \sinh(c + Z^\top\mu),

    mu_i = 2 y_i nu_i. The bound that is violated most becomes active; the minimiser with equality
    in the active ones, by Newton's method, is reached on a straight line, on which those become
    slack whose mu_i would be negative. The dual falls with each change.

    Args:
        problem: classification, without run dimensions.
        least_margins: m, [n] or a number; may have any sign.
        balancedness: Delta > 0, broadcasts to [d].
        log_init: c, broadcasts to [d].

    Raises:
        InputError: for a problem of another loss or with run dimensions, or Delta that is not
            finite and positive.

    >>> problem = Problem(X=[[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]], y=[1, 1], loss="logistic")
    >>> one = torch.ones(3, dtype=torch.float64)
    >>> found = margin_minimizer(problem, torch.tensor([1.0, 0.1]), 1e-2 * one, 0 * one)
    >>> [[round(x, 4) for x in v.tolist()] for v in (found.theta, found.nu)]  # one bound is slack
    [[0.0346, 0.4827, 0.0], [1.3158, 0.0]]
    """
    errors = [*classification_errors(problem)]
    if problem.runs:
        errors.append(f"problem must have no run dimensions, it has {list(problem.runs)}")
    raise_if_any(errors)
    Z = problem.y[:, None] * problem.X
    n, d = Z.shape
    delta = checked_balancedness(balancedness).to(Z).expand(d)
    m, c = least_margins.to(Z).expand(n), log_init.to(Z).expand(d)
    mu, active, changes = torch.zeros_like(m), torch.zeros(n, dtype=torch.bool), 0
    theta = delta * torch.sinh(c / 2) * torch.cosh(c / 2)
    best, best_theta, best_mu = math.inf, theta, mu
    while True:
        margin = Z @ theta
        missing = (m - margin) / torch.maximum(m.abs().amax(), margin.abs().amax()).clamp(min=_TINY)
        if float(missing.amax()) < best:
            best, best_theta, best_mu = max(0.0, float(missing.amax())), theta, mu
        place = int(torch.where(active, -math.inf, missing).argmax())
        if (
            best <= _SHORTFALL
            or changes > _MOST_CHANGES * n
            or active.all()
            or missing[place] <= _SHORTFALL / 2
        ):
            break
        active[place], changes = True, changes + 1
        while bool(active.any()):
            rows = RowSpace.of(Z[active])
            found = bregman_minimizer(rows, rows.target(m[active]), delta, c, near=theta)
            new = torch.zeros_like(mu)
            new[active] = apply(rows.to_target.mT, found.nu)
            negative = active & (new < 0)
            if not bool(negative.any()):
                mu, theta = new, found.theta
                break
            # the first mu_i to vanish on the way from mu to the new one
            share = torch.where(negative, mu / (mu - new), math.inf)
            first = int(share.argmin())
            mu = (mu + share[first] * (new - mu)).clamp(min=0)
            mu[first], active[first], changes = 0.0, False, changes + 1
    return MarginMinimizer(
        theta=best_theta,
        nu=problem.y * best_mu / 2,
        shortfall=best,
        converged=best <= _SHORTFALL,
        changes=changes,
    )

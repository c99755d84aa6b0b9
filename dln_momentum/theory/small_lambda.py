"""Guarantees for a small lambda, and the limit of Delta_inf.

(docs/theory.md#small-lambda; poster, section 4.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import balancedness_of, theta_of

if TYPE_CHECKING:
    from dln_momentum.flows.path import FlowPath


def lambda_threshold(problem: Problem, w_plus_0: Tensor, w_minus_0: Tensor) -> Tensor:
    """The lambda below which no balancedness vanishes along the flow from rest, [*runs].

    (docs/theory.md#threshold.)
        lambda < min_i Delta_{0,i} / (2 F(w_0))

    With theta_0 = 0 it is the poster's n/||y||^2 min_i Delta_{0,i}. It is sufficient, not
    necessary, and small in practice.

    Args:
        problem: the data.
        w_plus_0, w_minus_0: w_+- at t = 0, [*runs, d].

    Returns:
        The threshold; infinite where w_0 already interpolates.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> lambda_threshold(problem, w, w)
    tensor(0.0625, dtype=torch.float64)
    """
    w = w_plus_0.to(problem.X), w_minus_0.to(problem.X)
    return balancedness_of(w).amin(-1) / (2 * problem.loss(theta_of(w)))


def balance_drift(path: FlowPath) -> Tensor:
    """|q_t - q_0| with q = u^2 - v^2 = w_+ w_-, [T, d]; see `balance_drift_bound`."""
    q = path.w[0] * path.w[1]
    return (q - q[0]).abs()


def balance_drift_bound(lam: Tensor | float, loss_0: Tensor | float) -> Tensor | float:
    """The bound |q_t - q_0| <= 2 lambda F(w_0) for flows from rest.

    (docs/theory.md#threshold.)
    q = u^2 - v^2 obeys ``lambda q'' + q' = 2 lambda (u'^2 - v'^2)``, and the integral of
    ||w'||^2 is at most F(w_0). It holds in every coordinate and for the sum over coordinates, and
    with it Delta stays positive below `lambda_threshold`.
    """
    return 2 * lam * loss_0


def descent_modulus(problem: Problem, w: Tensor, after: Tensor) -> Tensor:
    """The smoothness of F that a step from w to ``after`` needs, [...].

        M_k = 2 (F(w_{k+1}) - F(w_k) - <grad F(w_k), D_k>) / ||D_k||^2,    D_k = (du, dv)

    is the least M for which the step has the descent inequality
    ``F(w_{k+1}) <= F(w_k) + <grad F(w_k), D_k> + M/2 ||D_k||^2``, all that the discrete bound of
    the drift needs of the smoothness of F (docs/theory.md#discrete-threshold, and at every step
    docs/theory.md#discrete-threshold-steps). F is a polynomial of degree four on a segment: with
    ``h = u dv + v du + du dv`` the change of theta,

        F(w_{k+1}) - F(w_k) - <grad F(w_k), D_k> = <grad L, du dv> + ||X h||^2/(2n),

    without cancellation. It is 0 where nothing moves.

    Args:
        problem: the data.
        w, after: w_+- before and after the step, [2, ..., d] each.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2, 2), 0.5, dtype=torch.float64)
    >>> descent_modulus(problem, w, w + torch.tensor([[0.1], [0.0]], dtype=torch.float64))
    tensor(-2.3194, dtype=torch.float64)
    """
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    change = after - w
    du, dv = (change[0] + change[1]) / 2, (change[0] - change[1]) / 2
    theta = theta_of(w)
    moved = problem.residual(theta + u * dv + v * du + du * dv) - problem.residual(theta)
    rest = (problem.gradient(theta) * du * dv).sum(-1) + moved.square().sum(-1) / (2 * problem.n)
    size = (du.square() + dv.square()).sum(-1)
    return torch.where(size > 0, 2 * rest / size, 0.0)


def discrete_drift_bound(lam_ks: float, eps: float, loss_0: float, M: float) -> float:
    """The bound sum_i |q_{k,i} - q_{0,i}| <= 2 lambda_KS F(w_0)/(1 - eps M/2) for runs from rest.

    (docs/theory.md#discrete-threshold; not on the poster.) q = u^2 - v^2, full batch, at every
    step k. It is infinite unless eps M < 2.

    Args:
        lam_ks: lambda (1 + beta)/2.
        eps: gamma/(1 - beta).
        loss_0: F(w_0).
        M: a bound of `descent_modulus` over the steps; one below 0 counts as 0.

    >>> discrete_drift_bound(0.5, 0.1, 2.0, 10.0)
    4.0
    >>> discrete_drift_bound(0.5, 0.1, 2.0, 20.0)
    inf
    """
    margin = 1 - eps * max(M, 0.0) / 2
    return 2 * lam_ks * loss_0 / margin if margin > 0 else float("inf")


def discrete_threshold(least_balancedness: float, eps: float, loss_0: float, M: float) -> float:
    """The lambda_KS below which no Delta_k vanishes, (1 - eps M/2) min_i Delta_{0,i}/(2 F(w_0)).

    (docs/theory.md#discrete-threshold; not on the poster.) 0 unless eps M < 2.

    >>> round(discrete_threshold(0.02, 0.1, 0.1, 0.0), 12)
    0.1
    """
    return max(1 - eps * max(M, 0.0) / 2, 0.0) * least_balancedness / (2 * loss_0)


def small_lambda_balancedness(gradient_path: FlowPath, lam: Tensor | float) -> Tensor:
    """The limit of Delta_inf as lambda -> 0, to leading order.

    (docs/theory.md#small-lambda-limit.)
        Delta_inf ~ Delta_0 exp(-2 lambda int_0^inf (grad L(theta_t))^2 dt)

    with theta_t the gradient flow from the same start. The error of the exponent, relative to the
    exponent, falls linearly in lambda.

    Args:
        gradient_path: a converged path of `gradient_flow`.
        lam: lambda, a number or [*runs, 1].

    Returns:
        The estimate, [*runs, d].

    Raises:
        InputError: if the path is not one of gradient flow.

    >>> from dln_momentum.flows import gradient_flow
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = gradient_flow(problem, torch.ones(2), torch.ones(2), time=100.0, tol=1e-24)
    >>> [round(x, 5) for x in small_lambda_balancedness(path, 0.01).tolist()]
    [0.99..., 0.97...]
    """
    if gradient_path.gradient_square is None:
        raise InputError(f"lambda = {gradient_path.lam:g} of the path must be 0 (gradient flow)")
    return gradient_path.balancedness[0] * torch.exp(-2 * lam * gradient_path.gradient_square[-1])

"""At what order momentum gradient descent follows its flow, measured on a given problem."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.flows.momentum_flow import momentum_flow
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.theory.reference import reference_iterates


@dataclass(frozen=True)
class DiscretisationOrders:
    """Distances of MGD(gamma, beta) to two flows, at one lambda and several eps.

    Attributes:
        lam: lambda.
        eps: time steps, decreasing.
        lam_ks: lambda_KS = lambda - eps/2 of each.
        errors: max_k ||w_k - w(k eps)||_inf against MGF(lambda).
        errors_ks: max_k ||w_k - w((k - 1/2) eps)||_inf against MGF(lambda_KS).
    """

    lam: float
    eps: tuple[float, ...]
    lam_ks: tuple[float, ...]
    errors: tuple[float, ...]
    errors_ks: tuple[float, ...]

    @property
    def order(self) -> float:
        """Slope of ln(error) on ln(eps) against MGF(lambda); 1 in theory."""
        return _slope(self.eps, self.errors)

    @property
    def order_ks(self) -> float:
        """Slope of ln(error) on ln(eps) against MGF(lambda_KS); 2 in theory."""
        return _slope(self.eps, self.errors_ks)


def discretisation_orders(
    problem: Problem,
    w_plus_0: Tensor,
    w_minus_0: Tensor,
    lam: float,
    time: float,
    eps: Sequence[float],
) -> DiscretisationOrders:
    """Measure the order at which MGD(gamma, beta) from rest follows momentum gradient flow.

    At fixed lambda, with gamma = eps^2/lambda and beta = 1 - eps/lambda, the distance to
    MGF(lambda) is O(eps). The same iterates are the central-difference scheme of MGF(lambda_KS),
    lambda_KS = lambda (1 + beta)/2, which is at rest half-way between w_0 and w_1 = w_0, at
    t = eps/2: with that shift the distance is O(eps^2) (docs/theory.md#order; poster, section 1).

    The clean orders are those of a smooth motion in its asymptotic range, eps well below lambda;
    where coordinates cross zero (lambda about 1 and above) errors are amplified on the way.

    Args:
        problem: the data, without run dimensions.
        w_plus_0, w_minus_0: w_+- at t = 0 and at the first two steps, [d].
        lam: lambda > 0.
        time: how far to compare.
        eps: at least two time steps, each in (0, lam] and at most `time`.

    Returns:
        The distances; the orders are properties of the result.

    Raises:
        InputError: for numbers that are not allowed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> measured = discretisation_orders(problem, w, w, 0.2, 2.0, [0.01, 0.005])
    >>> round(measured.order, 1), round(measured.order_ks, 1)
    (1.0, 2.0)
    """
    steps = tuple(sorted(set(eps), reverse=True))
    if len(steps) < 2:
        raise InputError(f"eps = {list(eps)} must hold at least two different values")
    if not 0 < time < math.inf:
        raise InputError(f"time = {time:g} must be finite and > 0")
    raise_if_any(
        f"eps = {step:g} must be in (0, {min(lam, time):g}], the smaller of lam and time"
        for step in steps
        if not 0 < step <= min(lam, time)
    )
    start = (w_plus_0, w_minus_0)
    rows = [_distances(problem, start, lam, time, step) for step in steps]
    lam_ks, errors, errors_ks = zip(*rows, strict=True)
    return DiscretisationOrders(lam, steps, lam_ks, errors, errors_ks)


def _distances(
    problem: Problem, start: tuple[Tensor, Tensor], lam: float, time: float, eps: float
) -> tuple[float, float, float]:
    momentum = Momentum.from_pair(lam=lam, eps=eps)
    iterates = _iterates(problem, start, momentum, round(time / eps))
    k = torch.arange(1, len(iterates) + 1, dtype=torch.float64)

    def distance(flow_lam: float, times: Tensor) -> float:
        path = momentum_flow(problem, *start, flow_lam, float(times[-1]), times=times)
        # the path starts with t = 0, which is not among the times
        w = torch.stack([path.w_plus[1:], path.w_minus[1:]], 1)
        return float((w - iterates).abs().max())

    # lambda (1 + beta)/2, without the digits that 1 - beta has lost near beta = 1
    lam_ks = lam - eps / 2
    return lam_ks, distance(lam, eps * k), distance(lam_ks, eps * (k - 0.5))


def _iterates(
    problem: Problem, start: tuple[Tensor, Tensor], momentum: Momentum, steps: int
) -> Tensor:
    """(w_{+,k}, w_{-,k}) for k = 1..steps, [steps, 2, d]; w_1 = w_0."""
    w_plus, w_minus = start
    u, v = (w_plus + w_minus) / 2, (w_plus - w_minus) / 2
    later = reference_iterates(problem, u, v, momentum.gamma, momentum.beta)
    pairs = itertools.chain([(u, v)], itertools.islice(later, steps - 1))
    return torch.stack([torch.stack([u + v, u - v]) for u, v in pairs])


def _slope(eps: Sequence[float], errors: Sequence[float]) -> float:
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (eps, errors))
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())

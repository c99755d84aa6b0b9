"""I_+- integrated from its definition, away from zeros of w_+-: the check of the regular form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.flows.path import FlowPath
from dln_momentum.flows.step_sums import StepSums
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import path_integrals

CUTOFF = 0.1
"""Largest relative change of w_+- over a step that is summed. A step with a larger change is too
near a zero of w_+-: the integrand has a double pole at the distance w/w' and is no polynomial."""

TINY = torch.finfo(torch.float64).tiny

BLOCK_ENTRIES = 2**18
"""Entries of w_+- in the steps that are summed at once, which takes some twenty arrays of them."""


@dataclass(frozen=True)
class SummedIntegrals:
    """I_{+-,t} at every time of a path, from the definition except near a zero.

    Attributes:
        integrals: (I_+, I_-), [2, T, d].
        uncertainty: bound on the error of the sums up to each time, the largest over coordinates,
            [T]: what the next lower order of quadrature would have given, all differences added.
        fraction: the fraction of the time over which the definition was summed, the smallest over
            coordinates; over the rest the regular form is used.
    """

    integrals: Tensor
    uncertainty: Tensor
    fraction: float


def quadrature_path_integrals(problem: Problem, path: FlowPath) -> Tensor:
    """(I_+, I_-) up to t, summed from the definition lambda int (w_+-'/w_+-)^2, [2, T, d].

    The check of `path_integrals`, which is the equation of motion integrated once and so cannot
    test itself. Between the times of the path it takes the integral of the quintic polynomial
    through f = lambda (w'/w)^2, f' and f'' at both ends, which the equation of motion supplies;
    the error is of sixth order in the spacing, so give it a path with every step of the solver.

    Raises:
        InputError: if some w_+- changed sign, where the integral does not exist, or lambda = 0.
    """
    crossed = int((path.sign_changes > 0).sum())
    if crossed or path.is_gradient_flow:
        found = f"lambda = {path.last_lam:g} must be > 0 and sign changes 0"
        raise InputError(f"{found}, found {crossed} coordinates")
    return accumulated((path.sums or sums_of_steps(problem, path)).definition)


def summed_path_integrals(
    problem: Problem, path: FlowPath, cutoff: float = CUTOFF
) -> SummedIntegrals:
    """I_{+-,t} summed from its definition wherever w_+- is far from zero, sign changes allowed.

    At a zero of w_+- the integral is the Hadamard finite part, which the regular form gives; it
    replaces the sum over the steps during which w_+- changes by more than the fraction `cutoff`,
    and over no others. So this is a check of `path_integrals` on paths of any lambda.

    Args:
        problem: the data.
        path: a momentum flow with every step of the solver.
        cutoff: the largest |w'/w| times the length of a step that is summed.

    Raises:
        InputError: if lambda = 0.

    >>> from dln_momentum.flows import momentum_flow
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.1)
    >>> path = momentum_flow(problem, w, w, lam=4.0, time=60.0)
    >>> int(path.sign_changes.sum()), round(summed_path_integrals(problem, path).fraction, 1)
    (3, 0.9)
    """
    if path.is_gradient_flow:
        raise InputError("lambda = 0 must be > 0: gradient flow has no I_+-")
    if path.sums is not None and cutoff != CUTOFF:
        raise InputError(f"cutoff = {cutoff:g} must be {CUTOFF:g}: not every step is kept")
    sums = path.sums or sums_of_steps(problem, path, cutoff)
    return SummedIntegrals(
        accumulated(sums.regularised),
        accumulated(sums.error_estimate).amax((0, 2)),
        1.0 - float(sums.skipped.max() / path.t[-1].clamp_min(TINY)),
    )


def sums_of_steps(problem: Problem, path: FlowPath, cutoff: float = CUTOFF) -> StepSums:
    """The sums over every step of a path, one interval a step; a block of steps at a time."""
    block = max(1, BLOCK_ENTRIES // path.w[:, 0].numel())
    intervals = len(path.t) - 1
    found = _sums_of_block(problem, path.at(slice(0, block + 1)), cutoff)
    if intervals <= block:
        return found
    # written where they belong: of a large network each block is one step
    found = found.with_room(intervals)
    for first in range(block, intervals, block):
        part = _sums_of_block(problem, path.at(slice(first, first + block + 1)), cutoff)
        found.put(first, part)
    return found


def _sums_of_block(problem: Problem, path: FlowPath, cutoff: float) -> StepSums:
    w, intervals = path.w, len(path.t) - 1
    signs = w.sign()  # products of entries below 1e-162 would be 0
    changes = (signs[:, 1:] * signs[:, :-1] < 0).sum((0, 2))
    if path.is_gradient_flow:
        nothing = w.new_zeros(2, intervals, 0)
        return StepSums(nothing, nothing, nothing, changes, torch.zeros_like(w[:, 0]))
    steps = step_integrals(problem, path)
    summed = steps.change <= cutoff
    return StepSums(
        steps.value,
        torch.where(summed, steps.value, path_integrals(path).diff(dim=1)),
        torch.where(summed, steps.error_estimate, 0.0),
        changes,
        (~summed * path.t.diff().unsqueeze(-1)).sum(1),
    )


class _StepIntegrals(NamedTuple):
    """I_+- over each step of the path, [2, T - 1, d] each."""

    value: Tensor
    error_estimate: Tensor
    change: Tensor
    """|w'/w| times the length of the step; infinite across a zero"""


def step_integrals(problem: Problem, path: FlowPath) -> _StepIntegrals:
    """int P q^2 over each step for q = w'/w, which obeys lambda (q' + q^2) + f q +- g = 0."""
    w, dw = path.w, path.dw
    residual_rate = (w[0] * dw[0] - w[1] * dw[1]) / 2 @ problem.X.mT
    # g = grad L and its time derivative, with the sign of w_+-
    gradient, gradient_rate = (
        torch.stack([g, -g])
        for g in (problem.gradient(path.theta), residual_rate @ problem.X / problem.n)
    )
    q = dw / w
    if path.coefficients is None:
        lam = path.lam
        dq = -(q + gradient) / lam - q * q
        ddq = -(dq + gradient_rate) / lam - 2 * q * dq
        f, df, ddf = q * q, 2 * q * dq, 2 * (dq * dq + q * ddq)
    else:
        # P is in f, which lambda = 1 then leaves alone
        lam = 1.0
        f, df, ddf = _weighted_square(path, q, gradient, gradient_rate)
    h = path.t.diff().unsqueeze(-1)
    trapezoid, slope = h / 2 * (f[:, 1:] + f[:, :-1]), h**2 * df.diff(dim=1)
    cubic = trapezoid - slope / 12
    quintic = trapezoid - slope / 10 + h**3 / 120 * (ddf[:, 1:] + ddf[:, :-1])
    largest = q.abs()[:, 1:].maximum(q.abs()[:, :-1]) * h
    signs = w.sign()
    change = torch.where(signs[:, 1:] * signs[:, :-1] > 0, largest, torch.inf)
    return _StepIntegrals(lam * quintic, lam * (quintic - cubic).abs(), change)


def _weighted_square(
    path: FlowPath, q: Tensor, gradient: Tensor, gradient_rate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """P q^2 and its first two time derivatives where lambda or the friction changes, [2, T, d].

    With a = f/lambda: q' = -(a q +- g/lambda) - q^2 and P' = a P - 1.
    """
    given, times = path.coefficients, path.t.tolist()
    assert given is not None
    # a friction b/t is infinite at 0, where P q^2 and both derivatives are 0
    known = [max(t, times[1] * 1e-3) if given.starts_singular else t for t in times]

    def column(function: Callable[[float], float]) -> Tensor:
        return torch.tensor([function(t) for t in known], dtype=torch.float64)[:, None]

    m, dm = column(given.inertia), column(given.inertia_slope)
    c, dc = column(given.damping), column(given.damping_slope)
    P, a = path.memory, c / m
    da = dc / m - a * dm / m
    dP = a * P - 1
    ddP = da * P + a * dP
    dq = -(a * q + gradient / m) - q * q
    ddq = -(da * q + a * dq + gradient_rate / m - gradient * dm / m**2) - 2 * q * dq
    found = (
        P * q * q,
        dP * q * q + 2 * P * q * dq,
        ddP * q * q + 4 * dP * q * dq + 2 * P * (dq * dq + q * ddq),
    )
    if given.starts_singular and times[0] == 0:
        for value in found:
            value[:, 0] = 0.0
    return found


def accumulated(steps: Tensor) -> Tensor:
    """The sums up to each time, [2, T, d], of [2, T - 1, d]."""
    return torch.cat([steps.new_zeros(2, 1, steps.shape[-1]), steps.cumsum(1)], 1)

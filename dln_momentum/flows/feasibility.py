"""What a flow would take, known before it is integrated: flows that cannot end are refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dln_momentum.arrays import is_real
from dln_momentum.flows.options import STEPS_OF_ONE, FlowOptions
from dln_momentum.problem import Problem

ULPS = 10.0
"""Flows from alpha = 100 and 1000 reached the loss of ten ulps; at alpha = 100, of three, none."""

ULP = torch.finfo(torch.float64).eps

OUTSIDE = 1e-13
"""Share of y outside the range of X that is more than rounding of it."""

EXPLICIT_STEPS, LEAPFROG_STEPS = 5.0, 25.0
"""Steps a radian of the fastest oscillation of one flow at rtol 1e-13, and of many at 1e-9. At
alpha = 100, lambda = 1 on (5, 8, 2) they were 6.0 and 34."""

EXPLICIT_FOR = 100.0
"""Time in units of lambda after which the oscillations have decayed to e^-50 in amplitude, and an
implicit method can take steps that are longer than they are."""


def curvature(problem: Problem, w: Tensor) -> Tensor:
    """The largest eigenvalue of X diag((w_+^2 + w_-^2)/2) X^T / n, w [2, ..., d]."""
    weight = w.to(problem.X).square().sum(0).unsqueeze(-2) / 2
    return torch.linalg.eigvalsh((problem.X * weight) @ problem.X.mT / problem.n)[..., -1]


def loss_resolution(problem: Problem, w: Tensor) -> Tensor:
    """The loss that rounding of w_+- [2, ..., d] leaves: `ULPS` of each square in X theta.

    >>> w = torch.full((2, 1), 1e4, dtype=torch.float64)
    >>> f"{loss_resolution(Problem(X=[[1.0]], y=[1.0]), w).item():.0e}"
    '6e-15'
    """
    squares = ULPS * ULP * w.to(problem.X).square().sum(0) / 4
    return (problem.X.square() @ squares.square().unsqueeze(-1)).squeeze(-1).mean(-1) / 2


def _end(problem: Problem) -> Tensor:
    """w_+- of the size that it has at the interpolator of least l2 norm, [2, ..., d]."""
    rows = problem.row_space
    w = (2 * rows.span(rows.target(problem.y)).abs()).sqrt()
    return torch.stack([w, w])


def flow_errors(
    problem: Problem,
    w: Tensor,
    lam: Any,
    *,
    friction: Any,
    time: float,
    tol: float | None,
    rtol: float | None = None,
    max_steps: float | None = None,
) -> Iterator[str]:
    """What keeps a flow, or R of them, from its end, whoever asks for it.

    Args:
        problem, w, time, tol, rtol: as for `length_errors`.
        lam: lambda, a number or [R]; of a function nothing is known beforehand, and of a friction
            that changes neither.
        friction: as for `momentum_flow`.
        max_steps: of one flow. Fewer than `STEPS_OF_ONE` are a limit that somebody chose: a flow
            that is given up is a result too. None for many flows.
    """
    yield from resolution_errors(problem, w, tol)
    most = FlowOptions.max_steps if max_steps is None else max(max_steps, STEPS_OF_ONE)
    if not callable(lam) and is_real(friction):
        lam = torch.as_tensor(lam, dtype=torch.float64)
        number = float(friction)
        yield from length_errors(problem, w, lam, time, tol, rtol, most, friction=number)


def resolution_errors(problem: Problem, w: Tensor, tol: float | None) -> Iterator[str]:
    """A tolerance of the energy that the data, or rounding, do not let a flow from w reach.

    Of rounding only where the start is so large that its own, and not that of the limit, decides.
    """
    if tol is None or problem.is_classification:
        return
    outside = problem.row_space.range_residual(problem.y)
    unfit = (outside * torch.linalg.vector_norm(problem.y, dim=-1)).square() / (2 * problem.n)
    if float(outside.max()) > OUTSIDE and tol < float(unfit.max()):
        yield (
            f"tol = {tol:g} must be at least {1.01 * float(unfit.max()):.2g}: a share of "
            f"{float(outside.max()):.1e} of y is outside the range of X, and no theta fits it"
        )
        return
    least = float(loss_resolution(problem, w).max())
    if tol >= least:
        return
    if least > float(loss_resolution(problem, _end(problem)).max()):
        yield (
            f"tol = {tol:g} must be at least {least:.2g} at this start: of w_+- of "
            f"{float(w.abs().max()):.3g} rounding alone leaves such a loss"
        )


def length_errors(
    problem: Problem,
    w: Tensor,
    lam: Tensor,
    time: float,
    tol: float | None,
    rtol: float | None = None,
    max_steps: float = FlowOptions.max_steps,
    friction: float = 1.0,
) -> Iterator[str]:
    """A flow that has more oscillations to follow than its steps allow, one line of the worst.

    An oscillation's energy falls like exp(-f t/lambda), f the friction, and the fastest has the
    frequency sqrt(mu/lambda), with mu the curvature at the start, or at the interpolator of least
    l2 norm if that is larger. Estimates: a flow that is let through may still take too many steps.

    Args:
        problem: the data, of one flow or of R.
        w: w_+- at the start, [2, d] or [2, R, d].
        lam: lambda, a number for one flow, [R] for many; 0 for gradient flow, which does not
            oscillate.
        time, tol, rtol, max_steps: as for the flows.
        friction: f, a number.
    """
    mu = torch.maximum(curvature(problem, w), curvature(problem, _end(problem)))
    loss = problem.loss((w[0].square() - w[1].square()) / 4)
    decay = torch.full_like(loss, EXPLICIT_FOR)
    if tol is not None:
        decay = decay.minimum((loss / tol).clamp_min(1.0).log())
    length = (decay * lam / friction).clamp(max=time)
    default, most = (1e-13, EXPLICIT_STEPS) if lam.ndim == 0 else (1e-9, LEAPFROG_STEPS)
    # methods of order 8
    order = (default / (rtol or default)) ** (1 / 8)
    steps = torch.where(lam > 0, most * order * length * (mu / lam).sqrt(), 0.0)
    worst = int(steps.argmax())
    if float(steps.reshape(-1)[worst]) <= max_steps:
        return
    needed, lambda_, length, mu = (
        float(value.expand_as(steps).reshape(-1)[worst]) for value in (steps, lam, length, mu)
    )
    share = max_steps / needed
    allowed = max_steps / (most * order * math.sqrt(mu / lambda_))
    or_lam = f", or lam up to {share**2 * lambda_:.2g}" if length < time else ""
    # at another friction that is what is given
    given = f"lam = {lambda_:g}" + (f" and friction = {friction:g}" if friction != 1 else "")
    takes = "takes" if friction == 1 else "take"
    yield (
        f"{given} {takes} about {needed:.2g} steps of the solver, and max_steps = "
        f"{max_steps}: the flow oscillates at a frequency of {math.sqrt(mu / lambda_):.3g} until "
        f"t = {length:.3g}; allowed is a time up to {allowed:.2g}{or_lam}"
    )

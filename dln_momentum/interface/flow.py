"""Follow one flow or thousands, in one call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.arrays import array_of, common_shape, integer_of, number_of
from dln_momentum.engine.problems import data_of_runs, flat_problem
from dln_momentum.errors import Checks, InputError, raise_if_any
from dln_momentum.flows import FlowOptions, FlowPath, gradient_flow, momentum_flow
from dln_momentum.flows.batched import DEFAULT_RTOL, Flows, momentum_flows
from dln_momentum.flows.feasibility import flow_errors
from dln_momentum.flows.momentum_flow import coefficients_of
from dln_momentum.flows.options import STEPS_OF_ONE
from dln_momentum.interface.arguments import checked
from dln_momentum.interface.flow_run import FlowRun
from dln_momentum.interface.keywords import names_its_arguments
from dln_momentum.problem import Problem, stack
from dln_momentum.start import Start, uniform
from dln_momentum.theory.initial_speed import gradient_velocity

Pair = tuple[Tensor, Tensor]

DEFAULT_TOL = 1e-24


class _Until(NamedTuple):
    """How far and how exactly to integrate: the arguments of `flow`."""

    time: float
    times: Tensor | None
    tol: float | None
    rtol: float | None
    max_steps: int = STEPS_OF_ONE


@names_its_arguments
def flow(
    problem: Problem | Sequence[Problem],
    start: Start | None = None,
    *,
    lam: Any = 1.0,
    friction: Any = 1.0,
    time: float = math.inf,
    times: Any = None,
    speed: float = 0.0,
    tol: float | None = DEFAULT_TOL,
    rtol: float | None = None,
    max_steps: int = STEPS_OF_ONE,
) -> FlowRun:
    r"""Momentum gradient flow MGF(lambda); lam = 0 is gradient flow.

    .. math:: \lambda \ddot w + \dot w + \nabla F(w) = 0, \qquad \dot w(0) = -speed \nabla F(w_0)

    (docs/theory.md#momentum; poster, section 1.) One flow is integrated by an adaptive solver, an
    array of them by extrapolated leapfrog, all together; gradient flow always in its direct form.

    Args:
        problem: the data; a list of problems is an array of them.
        start: as for `train`; with parameters that are arrays there is a flow for each.
        lam: lambda >= 0, a number or an array; for one flow also lambda(t), as `Annealed` or a
            function of t that is smooth, finite and > 0.
        friction: f in ``lambda w'' + f w' + grad F = 0``, of one flow: 1 by default, another number
            > 0, ``"b/t"`` with b > lam (``"3/t"`` at lam = 1 is Nesterov's ODE), or a function of
            t. Functions and b/t need a finite ``time``, or ``times``
            (docs/theory.md#changing-coefficients).
        time: the time at which to stop; infinite by default, until the energy is at most ``tol``.
        times: increasing output times, shared by all flows, in place of ``time`` and ``tol``; the
            start is recorded too. Without times, every step of the solver of one flow is recorded,
            or the start and the end of each of many.
        speed: 0 is rest; gradient flow has no initial speed to choose.
        tol: stop once F + lambda/2 ||w'||^2 is at most this; None for never.
        rtol: relative error of a step of the solver; None for the default of `FlowOptions` for one
            flow and of `momentum_flows` for many.
        max_steps: steps of the solver after which one flow, or a gradient flow among many, ends as
            ``failed``. Where Delta is tiny a flow approaches its limit like 1/t, and rounding keeps
            the steps short at late times: a larger ``tol`` or a ``time`` ends it sooner.

    Returns:
        The flows, with NumPy arrays of shape [T] + S + [d].

    Raises:
        InputError: listing what is not allowed.

    >>> import dln_momentum as dln
    >>> problem = dln.Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = dln.flow(problem, dln.Start([0.5, 0.5], [0.0, 0.0]), lam=1.0)
    >>> path.status, [round(x, 4) for x in path.theta[-1].tolist()]
    ('converged', [0.4054, 0.7973])
    >>> path.certify().kkt_residual < 1e-8
    True
    >>> nesterov = dln.flow(problem, dln.Start([0.5], [0.0]), lam=1.0, friction="3/t", time=20.0)
    >>> nesterov.certify().kkt_residual < 1e-6
    True
    >>> many = dln.flow(problem, dln.Start([0.5, 0.5], [0.0, 0.0]), lam=[0, 0.1, 1], tol=1e-20)
    >>> many.theta.shape, many.status.tolist()
    ((2, 3, 2), ['converged', 'converged', 'converged'])
    """
    checks = Checks()
    if isinstance(problem, list | tuple) and all(isinstance(p, Problem) for p in problem):
        problem = checks.passed(problem, stack, problem)
    start = checks.passed(uniform(), checked, problem, start)
    if start.is_deep:
        checks.problems.append(
            f"start has depth = {start.depth}: a flow is of theta = u v, depth = 2"
        )
    lams = checks.passed(np.ones(()), array_of, "lam", 1.0 if callable(lam) else lam)
    speed = checks.passed(0.0, number_of, "speed", speed)
    time = checks.passed(math.inf if times is not None else 1.0, number_of, "time", time)
    tol, rtol = (
        None if value is None else checks.passed(None, number_of, key, value)
        for key, value in (("tol", tol), ("rtol", rtol))
    )
    max_steps = checks.passed(1, integer_of, "max_steps", max_steps, 1)
    outputs = None if times is None else checks.passed(None, array_of, "times", times)
    last = time if outputs is None or not outputs.size else float(outputs.flat[-1])
    # of many lambda a number > 0 does as well as another
    inertia = lam if callable(lam) else float(lams) if lams.ndim == 0 else 1.0
    given = checks.passed(None, coefficients_of, inertia, friction, last)
    checks.problems += _errors(lams, speed, time, outputs)
    checks.raise_if_any()
    assert isinstance(problem, Problem)
    shape = common_shape({"lam": lams.shape, "start": start.runs, "problem": tuple(problem.runs)})
    if given is not None and shape != ():
        raise InputError(
            f"lam and friction of {shape} flows: a function or a friction is for one flow"
        )
    w = start.weights(problem.d)
    if outputs is not None:
        time, tol = float(outputs[-1]), None
        # the start is recorded in any case
        outputs = torch.from_numpy(outputs[outputs > 0])
    if shape != ():
        w_plus, w_minus = (x.expand(*shape, problem.d).reshape(-1, problem.d) for x in w)
        w = w_plus, w_minus
    data = flat_problem(problem, shape)
    flat = torch.from_numpy(np.broadcast_to(lams, shape).reshape(-1).copy())
    known = lam if callable(lam) else flat if shape else float(lams)
    until = _Until(time, outputs, tol, rtol, max_steps)
    keys: dict[str, Any] = {"friction": friction, "time": time, "tol": tol, "rtol": rtol}
    keys["max_steps"] = max_steps if shape == () else None
    raise_if_any(flow_errors(data, torch.stack(w), known, **keys))
    dw = gradient_velocity(data, *w, speed) if speed else None
    if shape == ():
        path = _one(data, w, dw, known, until, friction)
    else:
        path = _many(data, w, dw, flat, until)
    return FlowRun(data, path, shape, None if outputs is not None else tol or DEFAULT_TOL)


def flow_many(
    problem: Problem,
    w: Tensor,
    lam: Tensor,
    *,
    velocity: Pair | None,
    time: float,
    times: Tensor | None,
    tol: float | None,
    rtol: float | None,
) -> Flows:
    """Flows of one start and many lambda, checked before; what `flow` gives as ``path``.

    Args:
        problem: the data, shared by all flows.
        w: w_+- at t = 0, [2, d].
        lam: lambda, [R], 0 for gradient flow.
        velocity: w_+-' at t = 0, [d] each; None for rest.
        time, tol, rtol: as for `flow`.
        times: increasing output times above 0, [T].
    """
    R = len(lam)
    plus, minus = w.unsqueeze(1).expand(2, R, problem.d)
    dw = None if velocity is None else (velocity[0].expand(R, -1), velocity[1].expand(R, -1))
    return _many(problem, (plus, minus), dw, lam, _Until(time, times, tol, rtol))


def _errors(
    lams: NDArray[np.float64], speed: float, time: float, times: NDArray[np.float64] | None
) -> Iterator[str]:
    wrong = lams[~((lams >= 0) & np.isfinite(lams))]
    if wrong.size:
        yield f"lam = {wrong.flat[0]:g} ({wrong.size} of {lams.size}) must be finite and >= 0"
    if speed and (lams == 0).any():
        yield f"speed = {speed:g} must be 0 where lam = 0: gradient flow has no initial speed"
    if times is None:
        if not time > 0:
            yield f"time = {time:g} must be > 0"
        return
    if time != math.inf:
        yield "time and times given: give one; times end at the last of them"
    finite = times.ndim == 1 and times[0] >= 0 and 0 < times[-1] < math.inf
    if not finite or (np.diff(times) <= 0).any():
        yield "times must be increasing finite numbers >= 0, [T], and the last of them > 0"


def _one(
    problem: Problem, w: Pair, dw: Pair | None, lam: Any, until: _Until, friction: Any = 1.0
) -> FlowPath:
    options = FlowOptions(rtol=until.rtol, max_steps=until.max_steps)
    if lam == 0:
        # the direct form, whose certificates can fail
        return gradient_flow(
            problem, *w, until.time, form="direct", times=until.times, tol=until.tol,
            options=options,
        )  # fmt: skip
    dw_plus, dw_minus = dw or (None, None)
    return momentum_flow(
        problem, *w, lam, until.time, friction=friction, dw_plus_0=dw_plus, dw_minus_0=dw_minus,
        times=until.times, tol=until.tol, options=options,
    )  # fmt: skip


def _many(problem: Problem, w: Pair, dw: Pair | None, lam: Tensor, until: _Until) -> Flows:
    """All momentum flows at once, and gradient flows one by one where lam = 0."""
    moving, gradient = (found.nonzero().squeeze(-1) for found in (lam > 0, lam == 0))
    parts = []
    if len(moving):
        dw_plus, dw_minus = (x[moving] for x in dw) if dw else (None, None)
        parts.append(
            momentum_flows(
                data_of_runs(problem, moving), w[0][moving], w[1][moving], lam[moving],
                until.time if until.times is None else until.times[:, None],
                dw_plus_0=dw_plus, dw_minus_0=dw_minus, tol=until.tol,
                rtol=DEFAULT_RTOL if until.rtol is None else until.rtol,
            )
        )  # fmt: skip
    for run in gradient:
        path = _one(data_of_runs(problem, run), (w[0][run], w[1][run]), None, 0.0, until)
        parts.append(_as_flows(path, None if until.times is None else len(until.times) + 1))
    return parts[0] if len(parts) == 1 else _joined(parts, torch.cat([moving, gradient]).argsort())


def _as_flows(path: FlowPath, count: int | None) -> Flows:
    """One path as R = 1 flows: at its two ends, or at its outputs and then its end, ``count``."""
    kept = [0, -1] if count is None else [*range(len(path.t)), *[-1] * count][:count]
    path = path.at(kept)
    t, loss, G = (value.unsqueeze(1) for value in (path.t, path.loss, path.G))
    w, dw = path.w.unsqueeze(2), path.dw.unsqueeze(2)
    return Flows(
        lam=t.new_zeros(1, 1), t=t, w=w, dw=dw, G=G, loss=loss,
        error_estimate=torch.full_like(t, torch.nan),
        sign_changes=path.sign_changes.sum()[None],
        steps=torch.tensor([sum(report.steps for report in path.solvers)]),
        status=(path.status,),
    )  # fmt: skip


def _joined(parts: Sequence[Flows], order: Tensor) -> Flows:
    """Several groups of flows as one, with its runs in this order."""
    axes = {"lam": 0, "t": 1, "w": 2, "dw": 2, "G": 1, "loss": 1, "error_estimate": 1}
    axes |= {"sign_changes": 0, "steps": 0}
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts], axis).index_select(axis, order)
        for name, axis in axes.items()
    }
    statuses = [status for part in parts for status in part.status]
    return Flows(**tensors, status=tuple(statuses[run] for run in order.tolist()))

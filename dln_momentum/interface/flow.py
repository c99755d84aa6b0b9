"""Follow one momentum flow or thousands, in one call."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from dln_momentum.errors import InputError
from dln_momentum.flows import FlowOptions, FlowPath, momentum_flow
from dln_momentum.flows.batched import DEFAULT_RTOL, Flows, momentum_flows
from dln_momentum.interface.arguments import array_of, checked, common_shape, flat_problem
from dln_momentum.problem import Problem
from dln_momentum.start import Start
from dln_momentum.theory.initial_speed import gradient_velocity


def flow(
    problem: Problem,
    start: Start | None = None,
    *,
    lam: Any = 1.0,
    time: float = math.inf,
    times: Any = None,
    speed: float = 0.0,
    tol: float | None = 1e-24,
    rtol: float | None = None,
) -> FlowPath | Flows:
    r"""Momentum gradient flow MGF(lambda); lam = 0 is gradient flow.

    .. math:: \lambda \ddot w + \dot w + \nabla F(w) = 0, \qquad \dot w(0) = -speed \nabla F(w_0)

    One lambda is integrated by an adaptive solver for one flow, an array of them by extrapolated
    leapfrog, all together.

    Args:
        problem: the data.
        start: as for `train`; with parameters that are arrays there is a flow for each.
        lam: lambda >= 0, or an array of lambda > 0.
        time: how far to go; infinite by default, until the energy is at most ``tol``.
        times: increasing output times; every step of the solver, or the two ends, without them.
        speed: 0 is rest; gradient flow has no initial speed to choose.
        tol: stop once F + lambda/2 ||w'||^2 is at most this; None for never.
        rtol: relative error of the solver's steps; its default without it.

    Returns:
        For one flow a `FlowPath`, with times along the first axis; for many a `Flows`, with the
        flows [R] along the second, in the order of the flattened shape.

    Raises:
        InputError: for what is not allowed.

    >>> import dln_momentum as dln
    >>> problem = dln.Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = dln.flow(problem, dln.Start([0.5, 0.5], [0.0, 0.0]), lam=1.0)
    >>> path.status.value, [round(x, 4) for x in path.theta[-1].tolist()]
    ('converged', [0.4054, 0.7973])
    >>> many = dln.flow(problem, dln.Start([0.5, 0.5], [0.0, 0.0]), lam=[0.1, 1.0], tol=1e-20)
    >>> many.theta.shape
    torch.Size([2, 2, 2])
    """
    start = checked(problem, start)
    values = array_of("lam", lam)
    shapes = {"lam": values.shape, "start": start.runs, "problem": tuple(problem.runs)}
    shape = common_shape(shapes)
    w_plus, w_minus = start.weights(problem.d)
    if times is not None:
        times = torch.from_numpy(array_of("times", times))
        time = float(times[-1]) if not math.isfinite(time) else time
    if shape == ():
        velocity = gradient_velocity(problem, w_plus, w_minus, speed) if speed else (None, None)
        options = FlowOptions(rtol=rtol)
        return momentum_flow(
            problem, w_plus, w_minus, float(values), time,
            dw_plus_0=velocity[0], dw_minus_0=velocity[1], times=times,
            tol=None if times is not None else tol, options=options,
        )  # fmt: skip
    if (values == 0).any():
        raise InputError(["lam = 0 is gradient flow, which is followed one at a time"])
    lams = torch.from_numpy(np.broadcast_to(values, shape).reshape(-1).copy())
    plus, minus = (w.expand(*shape, problem.d).reshape(-1, problem.d) for w in (w_plus, w_minus))
    data = flat_problem(problem, shape)
    moving = gradient_velocity(data, plus, minus, speed) if speed else (None, None)
    return momentum_flows(
        data, plus, minus, lams, time if times is None else times[:, None],
        dw_plus_0=moving[0], dw_minus_0=moving[1], tol=None if times is not None else tol,
        rtol=DEFAULT_RTOL if rtol is None else rtol,
    )  # fmt: skip

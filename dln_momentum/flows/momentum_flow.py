"""Momentum gradient flow of one diagonal network."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any
from dln_momentum.flows.coefficients import Annealed, Coefficients, Function, friction_of
from dln_momentum.flows.driven_system import DrivenSystem
from dln_momentum.flows.feasibility import EXPLICIT_FOR
from dln_momentum.flows.given_function import CHECKED
from dln_momentum.flows.gradient_flow import gradient_flow
from dln_momentum.flows.integrate import Integration, path_of_states, to_array
from dln_momentum.flows.momentum_system import MomentumSystem
from dln_momentum.flows.options import FlowOptions, option_errors, start_errors, time_errors
from dln_momentum.flows.path import FlowPath
from dln_momentum.flows.quadrature import sums_of_steps
from dln_momentum.problem import Problem


def momentum_flow(
    problem: Problem,
    w_plus_0: Tensor,
    w_minus_0: Tensor,
    lam: float | Annealed | Function,
    time: float,
    *,
    friction: Any = 1.0,
    dw_plus_0: Tensor | None = None,
    dw_minus_0: Tensor | None = None,
    times: Tensor | None = None,
    tol: float | None = None,
    options: FlowOptions | None = None,
) -> FlowPath:
    """Momentum gradient flow MGF(lambda) of one diagonal network.

    (docs/theory.md#diagonal-network; poster, sections 1 and 3.)

        lambda w_+-'' + w_+-' +- grad L(theta) * w_+- = 0,    theta = (w_+^2 - w_-^2)/4

    G_t, the integral of grad L, is part of the state, so that the implicit bias needs no second
    integration. For lambda from 1e-4 to 300 on (n, d, s, alpha) = (20, 30, 3, 0.1) the error of w,
    relative to its largest entry, stayed below 1e-9 at every output time, and below 1e-8 at
    lambda = 1000, where the flow itself amplifies errors a millionfold. Tighten the options for
    small entries of w there: each has the absolute error of the largest.

    Args:
        problem: the data, without run dimensions.
        w_plus_0, w_minus_0: w_+- at t = 0, [d].
        lam: lambda >= 0; 0 is `gradient_flow`. It may change with time: `Annealed`, or a function
            of t, smooth, finite and > 0 on [0, time].
        time: how far to go; may be infinite if tol is given, unless lam or friction is a function
            or the friction is b/t.
        friction: f in ``lambda w'' + f w' +- grad L w = 0``: a number > 0, ``"b/t"`` with b > lam
            as ``"3/t"`` (Nesterov's ODE, lam = 1; from rest), or a function of t like lam.
        dw_plus_0, dw_minus_0: w_+-' at t = 0, [d]; zero without them. Not allowed for lambda = 0.
        times: increasing output times in [0, time]; every step of the solver without them.
        tol: stop once the energy E = L + lambda/2 (||u'||^2 + ||v'||^2) is at most this. E never
            grows and bounds the loss, which for large lambda oscillates through small values long
            before the flow is near its limit.
        options: method and error settings.

    Returns:
        The path, on the CPU. A failed integration is its status, with the path up to there.

    Raises:
        InputError: for shapes, numbers or times that are not allowed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> path = momentum_flow(problem, w, w, lam=1.0, time=math.inf, tol=1e-20)
    >>> path.status.value, [round(x, 4) for x in path.theta[-1].tolist()]
    ('converged', [0.4054, 0.7973])
    """
    options = options or FlowOptions()
    given = coefficients_of(lam, friction, time)
    speed = {"dw_plus_0": dw_plus_0, "dw_minus_0": dw_minus_0}
    start = {"w_plus_0": w_plus_0, "w_minus_0": w_minus_0}
    errors = [
        *start_errors(problem, start | speed),
        *time_errors(time, times, tol),
        *option_errors(options),
    ]
    still = all(value is None or not bool(value.any()) for value in speed.values())
    if not callable(lam) and not 0 <= lam < math.inf:
        errors.append(f"lam = {lam:g} must be finite and >= 0")
    elif given is not None:
        errors += given.errors()
        if given.starts_singular and not still:
            errors.append(
                f"friction = {given.label} is infinite at t = 0: the start must be at rest"
            )
    if lam == 0 and not all(value is None for value in speed.values()):
        errors.append("lam = 0 is gradient flow, which has no initial speed to choose")
    raise_if_any(errors)
    if lam == 0:
        return gradient_flow(
            problem, w_plus_0, w_minus_0, time, times=times, tol=tol, options=options
        )
    w = to_array(torch.stack([w_plus_0, w_minus_0]))
    dw = np.stack([np.zeros(problem.d) if s is None else to_array(s) for s in speed.values()])
    if given is not None:
        return _driven(problem, w, dw, given, Integration(time, times, tol, options, 0.0))
    assert not callable(lam)
    system = MomentumSystem(to_array(problem.X), to_array(problem.y), float(lam))
    integration = Integration(time, times, tol, options, switch=EXPLICIT_FOR * lam)
    path_of = partial(path_of_states, problem, system, float(lam))
    sums = partial(sums_of_steps, problem)
    return integration.run(system, system.initial(w, dw), path_of, sums, watched=w.size)


def coefficients_of(lam: Any, friction: Any, time: float) -> Coefficients | None:
    """lambda and friction as functions of time; None where they are a number and 1, or lam is 0.

    Raises:
        InputError: for a friction of another kind.
    """
    found = friction_of(friction)
    inertia: Any = lam
    if not callable(lam) and (lam == 0 or found == 1.0):
        raise_if_any(
            [f"friction = {friction!r} must be 1 for lam = 0, gradient flow"]
            if found != 1.0
            else []
        )
        return None
    return Coefficients(inertia, found, time)


def _switch(given: Coefficients) -> float:
    """When "auto" changes to the implicit method: int f/lambda has reached `EXPLICIT_FOR`.

    A friction b/t that has become small leaves oscillations, which the implicit method follows
    worse.
    """
    if given.starts_singular:
        return math.inf
    end = given.horizon if given.is_function else max(given.corners, default=0.0)
    times = np.linspace(0.0, end, CHECKED)
    rates = np.array([given.damping(t) / given.inertia(t) for t in times.tolist()])
    decayed = np.append(0.0, np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(times)))
    if decayed[-1] < EXPLICIT_FOR:
        return end + (EXPLICIT_FOR - float(decayed[-1])) / float(rates[-1])
    return float(np.interp(EXPLICIT_FOR, decayed, times))


def _driven(
    problem: Problem, w: np.ndarray, dw: np.ndarray, given: Coefficients, integration: Integration
) -> FlowPath:
    """A flow whose lambda or friction is not constant, or whose friction is not 1."""
    system = DrivenSystem(to_array(problem.X), to_array(problem.y), given)
    integration = replace(integration, switch=_switch(given), corners=given.corners)
    series = system.series_start if given.starts_singular else None
    return integration.run(
        system,
        system.initial(w, dw),
        partial(_driven_path, problem, system),
        partial(sums_of_steps, problem),
        watched=w.size,
        series=series,
    )


def _driven_path(
    problem: Problem, system: DrivenSystem, times: np.ndarray, states: np.ndarray
) -> FlowPath:
    """`path_of_states` with lambda and the weight P at every time."""
    given = system.coefficients

    def column(function: Function) -> Tensor:
        return torch.tensor([function(t) for t in times.tolist()], dtype=torch.float64)[:, None]

    return replace(
        path_of_states(problem, system, given.inertia(0.0), times, states),
        lam=column(given.inertia),
        P=column(given.weight),
        coefficients=given,
        speed_products=torch.tensor(system.read(states).speed_products),
    )

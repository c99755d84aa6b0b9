"""Momentum gradient flow and gradient flow of one diagonal network, by SciPy's integrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy.integrate import DOP853, OdeSolver
from torch import Tensor

from dln_momentum.errors import refuse
from dln_momentum.flow.gradient_system import DirectGradientSystem, MirrorGradientSystem
from dln_momentum.flow.momentum_system import MomentumSystem
from dln_momentum.flow.newton import Linearised, StructuredRadau
from dln_momentum.flow.options import FlowOptions, option_problems, start_problems, time_problems
from dln_momentum.flow.path import FlowPath, SolverReport
from dln_momentum.flow.state import FlowSystem
from dln_momentum.flow.stepping import March, march
from dln_momentum.problem import Problem

STIFF_BELOW = 0.3
"""Below this lambda times the rate of change at the start, the implicit method is chosen."""


def momentum_flow(
    problem: Problem,
    w_plus_0: Tensor,
    w_minus_0: Tensor,
    lam: float,
    time: float,
    *,
    dw_plus_0: Tensor | None = None,
    dw_minus_0: Tensor | None = None,
    times: Tensor | None = None,
    tol: float | None = None,
    options: FlowOptions | None = None,
) -> FlowPath:
    """Momentum gradient flow MGF(lambda) of one diagonal network (poster, sections 1 and 3).

        lambda w_+-'' + w_+-' +- grad L(theta) * w_+- = 0,    theta = (w_+^2 - w_-^2)/4

    G_t, the integral of grad L, is part of what is integrated, so that the implicit bias needs no
    second pass.

    Args:
        problem: the data, without run dimensions.
        w_plus_0, w_minus_0: w_+- at t = 0, [d].
        lam: lambda >= 0; 0 is `gradient_flow`.
        time: how far to go; may be infinite if tol is given.
        dw_plus_0, dw_minus_0: w_+-' at t = 0, [d]; zero without them. Refused for lambda = 0.
        times: increasing output times in [0, time]; every step of the solver without them.
        tol: stop once the energy E = L + lambda/2 (||u'||^2 + ||v'||^2) is at most this. E never
            grows and bounds the loss, which for large lambda swings through small values long
            before the flow is near its limit.
        options: method and error settings.

    Returns:
        The path, on the CPU. A failed integration is its status, with the path up to there.

    Raises:
        InputError: for shapes, numbers or times that are not allowed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> path = momentum_flow(problem, w, w, lam=1.0, time=float("inf"), tol=1e-20)
    >>> path.status.value, [round(x, 4) for x in path.theta[-1].tolist()]
    ('converged', [0.4054, 0.7973])
    """
    options = options or FlowOptions()
    start = {"w_plus_0": w_plus_0, "w_minus_0": w_minus_0}
    speed = {"dw_plus_0": dw_plus_0, "dw_minus_0": dw_minus_0}
    complaints = [
        *start_problems(problem, start | speed),
        *time_problems(time, times, tol),
        *option_problems(options),
    ]
    if not 0 <= lam < float("inf"):
        complaints.append(f"lam = {lam:g} must be finite and >= 0")
    if lam == 0 and not all(value is None for value in speed.values()):
        complaints.append("lam = 0 (gradient flow) has no initial speed to choose")
    refuse(complaints)
    if lam == 0:
        return gradient_flow(
            problem, w_plus_0, w_minus_0, time, times=times, tol=tol, options=options
        )
    w = _array(torch.stack([w_plus_0, w_minus_0]))
    dw = np.stack([np.zeros(problem.d) if s is None else _array(s) for s in speed.values()])
    system = MomentumSystem(_array(problem.X), _array(problem.y), float(lam))
    implicit = options.method == "implicit" or (options.method == "auto" and _is_stiff(system, w))
    linearise = system.linearise if implicit else None
    record, report = _integrate(
        system, system.initial(w, dw), time, times, tol, options, linearise, watched=w.size
    )
    return _path(problem, system, float(lam), record, report)


def gradient_flow(
    problem: Problem,
    w_plus_0: Tensor,
    w_minus_0: Tensor,
    time: float,
    *,
    form: Literal["mirror", "direct"] = "mirror",
    times: Tensor | None = None,
    tol: float | None = None,
    options: FlowOptions | None = None,
) -> FlowPath:
    """Gradient flow of one diagonal network, w_+-' = -+ grad L(theta) * w_+- (lambda = 0).

    The mirror form integrates n unknowns and keeps ``w_+- = w_{+-,0} exp(-+G)`` exactly, so that
    its limit is the minimiser of D_{psi_{Delta_0}}(., theta_0) up to the residual that is left
    and nothing else. The direct form integrates w_+- and checks it.

    Args:
        problem: the data, without run dimensions.
        w_plus_0, w_minus_0: w_+- at t = 0, [d].
        time: how far to go; may be infinite if tol is given.
        form: "mirror" or "direct"; the direct form has no implicit method.
        times: increasing output times in [0, time]; every step of the solver without them.
        tol: stop once the loss is at most this.
        options: method and error settings; "auto" is the explicit method here.

    Returns:
        The path, on the CPU, with the integral of (grad L)^2 as `gradient_square`.

    Raises:
        InputError: for shapes, numbers or times that are not allowed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = gradient_flow(problem, torch.ones(2), torch.ones(2), time=100.0, tol=1e-24)
    >>> [round(x, 4) for x in path.theta[-1].tolist()]
    [0.3421, 0.829]
    """
    options = options or FlowOptions()
    complaints = [
        *start_problems(problem, {"w_plus_0": w_plus_0, "w_minus_0": w_minus_0}),
        *time_problems(time, times, tol),
        *option_problems(options),
    ]
    if form not in ("mirror", "direct"):
        complaints.append(f"form = {form!r} must be mirror or direct")
    if options.method == "implicit" and form == "direct":
        complaints.append("method = implicit needs form = mirror")
    refuse(complaints)
    arrays = _array(problem.X), _array(problem.y), _array(torch.stack([w_plus_0, w_minus_0]))
    mirror = MirrorGradientSystem(*arrays)
    system = mirror if form == "mirror" else DirectGradientSystem(*arrays)
    linearise = mirror.linearise if options.method == "implicit" else None
    record, report = _integrate(system, system.initial(), time, times, tol, options, linearise)
    return _path(problem, system, 0.0, record, report)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()


def _is_stiff(system: MomentumSystem, w: np.ndarray) -> bool:
    # w' = -+ grad L w once the memory is gone: the gradient at zero is a rate of the slow motion
    gradients = system.gradient_map @ np.stack([system.residual(w), system.y], axis=1)
    return system.lam * float(np.abs(gradients).max()) < STIFF_BELOW


def _integrate(
    system: FlowSystem,
    initial: np.ndarray,
    time: float,
    times: Tensor | None,
    tol: float | None,
    options: FlowOptions,
    linearise: Callable[[np.ndarray], Linearised] | None,
    watched: int = 0,
) -> tuple[March, SolverReport]:
    rtol, atol = options.tolerances(implicit=linearise is not None)
    # a trial step may overflow; the error estimate then rejects it
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        solver: OdeSolver
        if linearise is None:
            solver = DOP853(system.rhs, 0.0, initial, time, rtol=rtol, atol=atol)
        else:
            solver = StructuredRadau(
                system.rhs, 0.0, initial, time, linearise=linearise, rtol=rtol, atol=atol
            )
        record = march(
            solver,
            None if times is None else _array(times),
            lambda state: tol is not None and system.energy(state) <= tol,
            max_steps=options.max_steps,
            watched=watched,
        )
    report = SolverReport(
        method=type(solver).__name__,
        rtol=rtol,
        atol=atol,
        steps=record.steps,
        evaluations=solver.nfev,
        factorisations=solver.nlu,
        message=record.message,
    )
    return record, report


def _path(
    problem: Problem, system: FlowSystem, lam: float, record: March, report: SolverReport
) -> FlowPath:
    s = system.read(np.stack(record.states))
    w_plus, w_minus = torch.tensor(s.w).unbind(1)
    dw_plus, dw_minus = torch.tensor(s.dw).unbind(1)
    X = problem.X.cpu()
    flips = torch.from_numpy(record.sign_changes).reshape(-1, problem.d).sum(0)
    return FlowPath(
        lam=lam,
        t=torch.tensor(record.t, dtype=torch.float64),
        w_plus=w_plus,
        w_minus=w_minus,
        dw_plus=dw_plus,
        dw_minus=dw_minus,
        G=torch.tensor(s.R) @ X / problem.n,
        G_delayed=torch.tensor(s.H) @ X / problem.n,
        dissipated=torch.tensor(s.D),
        loss=problem.to("cpu").loss((w_plus + w_minus) * (w_plus - w_minus) / 4),
        status=record.status,
        sign_changes=flips,
        solver=report,
        gradient_square=None if s.Q is None else torch.tensor(s.Q),
    )

"""Gradient flow of one diagonal network, the limit lambda = 0 of momentum gradient flow."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any
from dln_momentum.flows.feasibility import loss_resolution
from dln_momentum.flows.gradient_system import DirectGradientSystem, MirrorGradientSystem
from dln_momentum.flows.integrate import Integration, path_of_states, to_array
from dln_momentum.flows.options import FlowOptions, option_errors, start_errors, time_errors
from dln_momentum.flows.path import FlowPath
from dln_momentum.flows.quadrature import sums_of_steps
from dln_momentum.problem import Problem

EXPLICIT_FOR = 100.0
"""Time in units of 1/||grad L(0)||_inf after which "auto" changes to the implicit method."""


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

    (docs/theory.md#gradient-flow; poster, section 3.)

    The mirror form integrates n unknowns and keeps ``w_+- = w_{+-,0} exp(-+G)`` exactly, so that
    its limit is the minimiser of D_{psi_{Delta_0}}(., theta_0) up to the remaining residual:
    the theorems on Delta_t and theta_t hold by construction. The direct form integrates w_+-,
    so that an error of the integration violates them.

    Args:
        problem: the data, without run dimensions.
        w_plus_0, w_minus_0: w_+- at t = 0, [d].
        time: how far to go; may be infinite if tol is given.
        form: "mirror" or "direct".
        times: increasing output times in [0, time]; every step of the solver without them.
        tol: stop once the loss is at most this.
        options: method and error settings.

    Returns:
        The path, on the CPU, with the integral of (grad L)^2 as `gradient_square`.

    Raises:
        InputError: for shapes, numbers or times that are not allowed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = gradient_flow(problem, torch.ones(2), torch.ones(2), time=math.inf, tol=1e-24)
    >>> [round(x, 4) for x in path.theta[-1].tolist()]
    [0.3421, 0.829]
    """
    options = options or FlowOptions()
    errors = [
        *start_errors(problem, {"w_plus_0": w_plus_0, "w_minus_0": w_minus_0}),
        *time_errors(time, times, tol),
        *option_errors(options),
    ]
    if form not in ("mirror", "direct"):
        errors.append(f"form = {form!r} must be mirror or direct")
    raise_if_any(errors)
    X, y = to_array(problem.X), to_array(problem.y)
    w_0 = to_array(torch.stack([w_plus_0, w_minus_0]))
    mirror = form == "mirror"
    system = MirrorGradientSystem(X, y, w_0) if mirror else DirectGradientSystem(X, y, w_0)
    rate = np.abs(system.gradient_map @ y).max()
    switch = EXPLICIT_FOR / rate if rate > 0 else math.inf
    integration = Integration(time, times, tol, options, switch)
    path_of = partial(path_of_states, problem, system, 0.0)
    path = integration.run(system, system.initial(), path_of, partial(sums_of_steps, problem))
    return replace(path, mirror_form=mirror)


def effective_flow(
    problem: Problem,
    balancedness: Tensor,
    *,
    tol: float = 1e-24,
    form: Literal["mirror", "direct"] = "mirror",
    options: FlowOptions | None = None,
) -> FlowPath:
    """Gradient flow from the effective initialisation u = sqrt(Delta_inf), v = 0.

    (docs/theory.md#effective-initialisation; poster, section 4.)

    It converges to argmin { psi_{Delta_inf}(theta) : X theta = y }, which is also the limit of the
    momentum flow where theta~_0 is negligible; whether it is must be measured.

    Args:
        problem: the data.
        balancedness: Delta_inf, [d], positive.
        tol, form, options: as for `gradient_flow`; tol is at least the loss that rounding leaves.

    >>> import torch
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> path = effective_flow(problem, torch.tensor([1e-9, 1e-9]))
    >>> [round(x, 4) for x in path.theta[-1].tolist()]
    [0.0, 1.0]
    """
    # in float64: a square root in single precision would be another start
    w = balancedness.to(problem.X).sqrt()
    # rounding of large entries may leave a larger loss
    tol = max(tol, float(loss_resolution(problem, torch.stack([w, w]))))
    return gradient_flow(problem, w, w, math.inf, form=form, tol=tol, options=options)

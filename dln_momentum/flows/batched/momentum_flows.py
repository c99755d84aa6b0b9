"""Momentum gradient flow of thousands of diagonal networks in one call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dln_momentum.engine import EngineOptions
from dln_momentum.errors import raise_if_any
from dln_momentum.flows.batched.integrator import BatchedIntegrator, IntegratorOptions
from dln_momentum.flows.batched.leapfrog import PhasePoint
from dln_momentum.flows.options import start_errors, tol_errors
from dln_momentum.flows.path import Flows
from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of

LARGEST_LAM = 1e12
DEFAULT_RTOL = 1e-9


def momentum_flows(
    problem: Problem,
    w_plus_0: Tensor,
    w_minus_0: Tensor,
    lam: Tensor,
    time: float | Tensor,
    *,
    dw_plus_0: Tensor | None = None,
    dw_minus_0: Tensor | None = None,
    tol: float | None = None,
    rtol: float = DEFAULT_RTOL,
    max_steps: int = 2_000_000,
    options: EngineOptions | None = None,
) -> Flows:
    """Momentum gradient flow MGF(lambda) for R values of lambda, starts or problems at once.

        lambda w_+-'' + w_+-' +- grad L(theta) * w_+- = 0,    theta = (w_+^2 - w_-^2)/4

    (docs/theory.md#diagonal-network; poster, sections 1 and 3.) MGD(gamma, beta) is a leapfrog
    scheme of MGF(lambda_KS), second order with even powers of its step only, which a small lambda
    does not slow down. Richardson extrapolation over four such runs, which the engine makes for
    all flows at once, is of order 8. Each flow has its own step: that at which the differences to
    the extrapolation of order 6 stay below ``rtol``, or at which leapfrog is stable.

    On (n, d, s, alpha) = (20, 30, 3, 0.1), lambda from 1e-4 to 300 and the default rtol the
    error of w, relative to its largest entry, stayed below 1e-10, and below 1e-8 at lambda = 1000,
    where the flow amplifies errors: read ``error_estimate``.

    Args:
        problem: the data, shared by all flows, or with run dimensions [R] (see `stack`).
        w_plus_0, w_minus_0: w_+- at t = 0, [R, d] or [d], nowhere zero.
        lam: lambda, [R], each in (0, 1e12].
        time: how far to go, a number or [R]; or increasing output times, [T, R] or [T, 1]. It may
            be infinite if tol is given. Each output time costs a hundred leapfrog steps or more.
        dw_plus_0, dw_minus_0: w_+-' at t = 0, [R, d] or [d]; zero without them.
        tol: end a flow after the first macro-steps at which its energy
            ``E = L + lambda/2 (||u'||^2 + ||v'||^2)`` is at most this.
        rtol: error of the macro-steps between two restarts, relative to the largest entry of w.
        max_steps: a flow that needs more leapfrog steps has failed.
        options: of the engine, for its backend and number of workers; the rest does not apply.

    Returns:
        The paths on the problem's device: at t = 0, and at the output times or where each flow
        ended, if that is earlier. A failure is reported as the status, with the path up to it.

    Raises:
        InputError: for shapes or numbers that are not allowed; all of them are listed.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> flows = momentum_flows(problem, w, w, torch.tensor([0.1, 1.0, 10.0]), math.inf, tol=1e-20)
    >>> flows.converged.tolist(), [round(x, 4) for x in flows.theta[-1, 1].tolist()]
    ([True, True, True], [0.4054, 0.7973])
    """
    given = {
        "w_plus_0": w_plus_0,
        "w_minus_0": w_minus_0,
        "dw_plus_0": dw_plus_0,
        "dw_minus_0": dw_minus_0,
    }
    starts = {key: _tensor(value, problem) for key, value in given.items() if value is not None}
    lam, times = _tensor(lam, problem), _tensor(time, problem)
    raise_if_any(
        [
            *_lam_errors(problem, lam),
            *start_errors(problem, starts, len(lam) if lam.ndim else 1),
            *_time_errors(lam, times, tol),
            *_number_errors(rtol, max_steps),
        ]
    )
    w_plus, w_minus, dw_plus, dw_minus = (
        starts.get(key, torch.zeros_like(lam[0])).expand(len(lam), problem.d) for key in given
    )
    w = torch.stack([w_plus, w_minus])
    P = w + lam[:, None] * torch.stack([dw_plus, dw_minus])
    integrator_options = IntegratorOptions(
        times=times.expand(len(times) if times.ndim == 2 else 1, len(lam)),
        rtol=rtol,
        tol=tol,
        max_steps=max_steps,
        engine=dataclasses.replace(
            options or EngineOptions(),
            tol=-math.inf,
            divergence_bound=math.inf,
            path_sums="gradient_sum",
        ),
    )
    start = PhasePoint(torch.stack([w, P]), torch.zeros_like(w[0]))
    integrator = BatchedIntegrator(problem, lam, integrator_options, start)
    integrator.run()
    return _read(problem, integrator)


def _tensor(value: Tensor | float, problem: Problem) -> Tensor:
    # without the dtype a Python float would first be rounded to float32
    return torch.as_tensor(value, dtype=problem.X.dtype).detach().to(problem.X)


def _read(problem: Problem, integrator: BatchedIntegrator) -> Flows:
    # [T, (w, P), +-, R, d] -> [(w, P), +-, T, R, d]
    w, P = integrator.out_values.permute(1, 2, 0, 3, 4).contiguous()
    dw = (P - w) / integrator.lam[:, None]
    return Flows(
        lam=integrator.lam[:, None],
        t=integrator.out_t,
        w=w,
        dw=dw,
        G=integrator.out_G,
        loss=problem.loss(theta_of(w)),
        error_estimate=integrator.out_error,
        sign_changes=integrator.sign_changes,
        steps=integrator.steps,
        status=integrator.statuses,
    )


def _lam_errors(problem: Problem, lam: Tensor) -> Iterator[str]:
    if lam.ndim != 1 or len(lam) == 0:
        yield f"lam has shape {tuple(lam.shape)}, must be [R] with R >= 1"
        return
    # beyond, a step's beta = (2 lambda - eps)/(2 lambda + eps) rounds to 1
    wrong = lam[~((lam > 0) & (lam <= LARGEST_LAM))]
    if len(wrong):
        allowed = f"in (0, {LARGEST_LAM:g}]"
        yield f"lam = {float(wrong[0]):g} ({len(wrong)} of {len(lam)}) must be {allowed}"
    if problem.runs and problem.runs != lam.shape:
        yield f"problem has run dimensions {list(problem.runs)}, must have none or [{len(lam)}]"


def _time_errors(lam: Tensor, times: Tensor, tol: float | None) -> Iterator[str]:
    R = len(lam) if lam.ndim else 1
    if times.ndim > 2 or times.numel() == 0 or (times.ndim and times.shape[-1] not in (1, R)):
        yield f"time has shape {tuple(times.shape)}, must be a number, [{R}], or [T, {R} or 1]"
        return
    if not bool((times > 0).all()):
        yield f"time = {float(times.min()):g} must be > 0"
    if times.ndim == 2 and not bool((times.diff(dim=0) > 0).all()):
        yield "time [T, R] must be increasing along T"
    yield from tol_errors(tol, bool(times.isinf().any()))


def _number_errors(rtol: float, max_steps: int) -> Iterator[str]:
    if not 1e-13 <= rtol < 1:
        yield f"rtol = {rtol:g} must be in [1e-13, 1)"
    if max_steps < 1:
        yield f"max_steps = {max_steps} must be >= 1"

r"""I_+- across zeros of w_+- by its definition, along a contour in complex time.

The solutions of the flow are analytic in t, and off the real axis lambda (w'/w)^2 has no pole. At a
simple zero of w_+- on the axis it has residue -1, so that along

    t(s) = s + i h sin(pi s/T),    s in [0, T],

a contour above it, the integral has the Hadamard finite part I_+- as its real part, and pi for each
zero as its imaginary part (docs/theory.md#contour; not on the poster).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.flows.integrate import to_array
from dln_momentum.flows.path import FlowPath
from dln_momentum.flows.quadrature import SummedIntegrals, accumulated, step_integrals
from dln_momentum.flows.state import SIGN
from dln_momentum.problem import Problem

HEIGHT = 0.1
"""Height of a contour, relative to its length; it is halved until it encloses real zeros alone."""
HALVINGS = 8
COUNT_ERROR = 1e-6
"""Largest distance of a count of zeros from an integer."""
TOLERANCE = 1e-12
"""Relative error of a step along a contour."""
REACH = 0.03
"""Largest relative change of w_+- over a step that is summed; the others are in a window. With the
cut-off of `summed_path_integrals` the sums agreed to 1e-7, with this one to 1e-8 and better."""
LARGEST_WORK = 400_000
"""Windows times n d, or 2000 where that is less: a few seconds of one core."""
SMALLEST_WINDOW = 2000


@dataclass(frozen=True, eq=False)
class ContourIntegrals(SummedIntegrals):
    """I_{+-,t} at every time of a path, by its definition throughout: `fraction` is 1.

    Attributes:
        zeros: how often each w_+- is 0, counted by the imaginary parts over pi, [2, d].
        count_error: the largest distance of these counts, contour by contour, from an integer.
    """

    zeros: Tensor
    count_error: float


def contour_integrals(problem: Problem, path: FlowPath, cutoff: float = REACH) -> ContourIntegrals:
    """I_+- along a momentum flow by its definition, sign changes included.

    Over the steps of the solver at which w_+- changes by less than the fraction ``cutoff`` the
    definition is summed as by `summed_path_integrals`; around the others, where a zero is near, it
    is integrated along a contour, from the state of the path where the contour leaves the axis.

    Args:
        problem: the data.
        path: a flow of constant lambda with every step of the solver.
        cutoff: as for `summed_path_integrals`.

    Raises:
        InputError: for lambda = 0, a lambda or friction that changes, windows beyond
            `LARGEST_WORK`, a path without some of its steps, or where no contour counts a whole
            number of zeros.

    >>> from dln_momentum.flows import momentum_flow
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.1)
    >>> path = momentum_flow(problem, w, w, lam=4.0, time=60.0)
    >>> found = contour_integrals(problem, path)
    >>> int(path.sign_changes.sum()), found.zeros.sum().item(), found.fraction
    (3, 3.0, 1.0)
    """
    if path.is_gradient_flow or path.changing:
        raise InputError("lambda must be constant and > 0, the friction 1, for a contour")
    if path.sums is not None:
        raise InputError("a contour needs every step of the solver, which memory did not hold")
    steps = step_integrals(problem, path)
    skipped = steps.change > cutoff
    windows = _windows(skipped.any(0).any(-1))
    most = LARGEST_WORK // max(problem.n * problem.d, SMALLEST_WINDOW)
    if len(windows) > most:
        raise InputError(f"{len(windows)} windows around zeros of w_+- must be at most {most}")
    values = torch.where(skipped, 0.0, steps.value)
    zeros, worst = torch.zeros_like(path.w[:, 0]), 0.0
    for first, last in windows:
        integral = _window(problem, path, first, last)
        here = skipped[:, first:last].any(1)
        # one number for the whole window, at its last step
        values[:, first:last] = torch.where(here[:, None], 0.0, values[:, first:last])
        values[:, last - 1] += torch.where(here, torch.from_numpy(np.real(integral)), 0.0)
        counts = torch.from_numpy(np.imag(integral) / np.pi)
        worst = max(worst, float((counts - counts.round()).abs().max()))
        zeros += counts.round()
    uncertainty = accumulated(torch.where(skipped, 0.0, steps.error_estimate)).amax((0, 2))
    return ContourIntegrals(accumulated(values), uncertainty, 1.0, zeros, worst)


def inside_windows(problem: Problem, path: FlowPath) -> Tensor:
    """Which times of the path lie inside a window, where the sums have not been formed, [T]."""
    found = torch.zeros(len(path.t), dtype=torch.bool)
    skipped = (step_integrals(problem, path).change > REACH).any(0).any(-1)
    for first, last in _windows(skipped):
        found[first + 1 : last] = True
    return found


def _windows(skipped: Tensor) -> list[tuple[int, int]]:
    """First and last time of each run of skipped steps."""
    flags = np.concatenate([[0], skipped.numpy().astype(np.int64), [0]])
    change = np.diff(flags)
    firsts, lasts = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _window(problem: Problem, path: FlowPath, first: int, last: int) -> np.ndarray:
    """The integral of lambda (w_+-'/w_+-)^2 from one time to another, [2, d] complex.

    The contour is as high as it can be without passing a zero of w_+- off the axis: the count of
    zeros must be that of the sign changes between the two ends.
    """
    w, dw = to_array(path.w[:, first]), to_array(path.dw[:, first])
    changes = (path.w[:, first] * path.w[:, last] < 0).numpy()
    duration = float(path.t[last] - path.t[first])
    height = HEIGHT * duration
    for _ in range(HALVINGS):
        found = _along(problem, w, dw, path, duration, height)
        counts = np.imag(found) / np.pi
        whole = np.abs(counts - counts.round()) <= COUNT_ERROR
        if whole.all() and (counts.round() % 2 == changes).all():
            return found
        height /= 2
    where = f"t = {float(path.t[first]):.6g} to {float(path.t[last]):.6g}"
    raise InputError(f"no contour over {where} counts a whole number of zeros of w_+-")


def _along(
    problem: Problem,
    w: np.ndarray,
    dw: np.ndarray,
    path: FlowPath,
    duration: float,
    height: float,
) -> np.ndarray:
    X, y, n, d = to_array(problem.X), to_array(problem.y), problem.n, problem.d
    assert not isinstance(path.lam, Tensor)
    lam, A = path.lam, np.ascontiguousarray(X.T / n)

    def rate(s: float, state: np.ndarray) -> np.ndarray:
        w, dw = state[: 2 * d].reshape(2, d), state[2 * d : 4 * d].reshape(2, d)
        gradient = A @ (X @ ((w[0] * w[0] - w[1] * w[1]) / 4) - y)
        ddw = (dw + SIGN * gradient * w) / -lam
        forward = 1 + 1j * height * np.pi / duration * np.cos(np.pi * s / duration)
        # lambda may be far from 1: with it the integral has the size of I_+-
        square = lam * (dw / w) ** 2
        return forward * np.concatenate([dw.ravel(), ddw.ravel(), square.ravel()])

    state = np.concatenate([w.ravel(), dw.ravel(), np.zeros(2 * d)]).astype(complex)
    atol = np.concatenate(
        [np.full(4 * d, 1e-3 * TOLERANCE * np.abs(w).max()), np.full(2 * d, TOLERANCE)]
    )
    found = solve_ivp(rate, (0, duration), state, "DOP853", rtol=TOLERANCE, atol=atol)
    if not found.success:
        return np.full((2, d), np.nan, dtype=complex)
    return found.y[4 * d :, -1].reshape(2, d)

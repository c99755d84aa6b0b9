"""What the tests of the flow are measured against: the same flows through other variables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dln_momentum import FlowPath, Problem

ALPHA = 0.1


def uniform_start(problem: Problem, alpha: float = ALPHA) -> Tensor:
    """w_+- at the usual initialisation, u = sqrt(2) alpha, v = 0."""
    return torch.full((problem.d,), np.sqrt(2) * alpha, dtype=torch.float64)


def layers(path: FlowPath) -> np.ndarray:
    """(u, v) of a path, [T, 2d]."""
    return torch.cat([path.u, path.v], -1).numpy()


def solve_in_layers(
    problem: Problem,
    state: np.ndarray,
    lam: float,
    times: np.ndarray,
    method: str = "DOP853",
    **options: Any,
) -> np.ndarray:
    """(u, v) [T, 2d] of lambda u'' + u' + grad L v = 0 (v likewise) from state (u, v, u', v')."""
    X, y, n, d = problem.X.numpy(), problem.y.numpy(), problem.n, problem.d

    def rhs(t: float, s: np.ndarray) -> np.ndarray:
        u, v, du, dv = s.reshape(4, d)
        g = X.T @ (X @ (u * v) - y) / n
        return np.concatenate([du, dv, -(du + g * v) / lam, -(dv + g * u) / lam])

    options = {"rtol": 1e-12, "atol": 1e-15} | options
    solution = solve_ivp(rhs, (0, times[-1]), state, method, times, **options)
    assert solution.success
    return solution.y[: 2 * d].T


def contour_integrals(
    problem: Problem, w: np.ndarray, lam: float, corners: list[complex]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """w_+- and lambda int (w_+-'/w_+-)^2 dt along straight lines between complex times.

    The solution is analytic in t, and off the real axis the integrand has no pole. At a simple
    zero of w the equation of motion gives it the residue -1, so a path above the zeros on the
    axis integrates to the Hadamard finite part plus i pi for each of them.
    """
    X, y, n, d = problem.X.numpy(), problem.y.numpy(), problem.n, problem.d

    def velocity(s: np.ndarray) -> np.ndarray:
        wp, wm, dwp, dwm, _, _ = s.reshape(6, d)
        g = X.T @ (X @ ((wp * wp - wm * wm) / 4) - y) / n
        ddw = -(dwp + g * wp) / lam, -(dwm - g * wm) / lam
        return np.concatenate([dwp, dwm, *ddw, lam * (dwp / wp) ** 2, lam * (dwm / wm) ** 2])

    state = np.concatenate([w, w, np.zeros(4 * d)]).astype(complex)
    for start, stop in pairwise(corners):
        along = lambda x, s, dt=stop - start: dt * velocity(s)  # noqa: E731
        state = solve_ivp(along, (0, 1), state, "DOP853", rtol=1e-12, atol=1e-15).y[:, -1]
    w_end, integrals = state[: 2 * d], state[4 * d :].reshape(2, d)
    return w_end.reshape(2, d), np.real(integrals), np.imag(integrals)


def dual_minimizer(problem: Problem, balancedness: Tensor, log_init: Tensor) -> Tensor:
    """argmin D_{psi_Delta}(., theta~_0) on the interpolators, by a damped Newton of the tests."""
    X = problem.row_space.basis.numpy()
    b = problem.row_space.target(problem.y).numpy()
    delta, c = balancedness.numpy(), log_init.numpy()
    nu = np.zeros(len(b))
    for _ in range(500):
        z = c + X.T @ nu
        hessian = (X * (delta / 2 * np.cosh(z))) @ X.T
        step = np.linalg.solve(hessian, b - X @ (delta / 2 * np.sinh(z)))
        # self-concordant enough: no coordinate of z moves by more than 1
        nu = nu + step / max(1.0, np.abs(X.T @ step).max())
    return torch.from_numpy(delta / 2 * np.sinh(c + X.T @ nu))

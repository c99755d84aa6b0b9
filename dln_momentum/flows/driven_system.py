"""A flow whose inertia and friction depend on time, as a first-order system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dln_momentum.flows.coefficients import Coefficients
from dln_momentum.flows.newton import Solve
from dln_momentum.flows.state import SIGN, FlowState
from dln_momentum.flows.system import InertialSystem

START = 0.01
"""A flow with friction b/t starts from its series at this share of its fastest time: the first term
that is left out, of t^6, is then below an ulp."""


@dataclass(frozen=True)
class DrivenSystem(InertialSystem):
    r"""lambda(t) w'' + f(t) w' +- grad L w = 0 of one diagonal network.

    (docs/theory.md#changing-coefficients; not on the poster.) The state is (w_+, w_-, w_+', w_-',
    R, Q, D), of size 5d + n + 1, with

    .. math:: R' = (P/\lambda)(X\theta - y), \quad Q' = 2P\,w_+' w_-', \quad
              D' = (f - \lambda'/2)(\|u'\|^2 + \|v'\|^2)

    for the identities of I_+-, of u^2 - v^2 and of the energy.
    """

    coefficients: Coefficients

    def inertia(self, t: float) -> float:
        """lambda(t)."""
        return self.coefficients.inertia(t)

    @property
    def inertia_at_start(self) -> float:
        """lambda/f at t = 0; of friction b/t lambda alone, in whose units the time is."""
        given = self.coefficients
        return given.inertia(0.0) / (1.0 if given.starts_singular else given.damping(0.0))

    def initial(self, w: np.ndarray, dw: np.ndarray) -> np.ndarray:
        """The state at t = 0 from w and w', both [2, d]."""
        return np.concatenate([w.ravel(), dw.ravel(), np.zeros(self.X.shape[0] + w.shape[1] + 1)])

    def read(self, states: np.ndarray) -> FlowState:
        """Views of states [..., 5d + n + 1]."""
        n, d = self.X.shape
        pair = (*states.shape[:-1], 2, d)
        integral = states[..., 4 * d : 4 * d + n]
        return FlowState(
            w=states[..., : 2 * d].reshape(pair),
            dw=states[..., 2 * d : 4 * d].reshape(pair),
            residual_integral=integral,
            # the mirror flow, which needs it, is one of constant lambda
            residual_delayed=np.full_like(integral, np.nan),
            dissipated=states[..., -1],
            speed_products=states[..., 4 * d + n : -1],
        )

    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state; at t > 0 alone where the friction is b/t."""
        given, s = self.coefficients, self.read(state)
        lam, f, P = given.inertia(t), given.damping(t), given.weight(t)
        residual = self.residual(s.w)
        ddw = (f * s.dw + SIGN * (self.gradient_map @ residual) * s.w) / -lam
        spent = (f - given.inertia_slope(t) / 2) * (s.dw**2).sum() / 2
        products = 2 * P * s.dw[0] * s.dw[1]
        return np.concatenate([s.dw.ravel(), ddw.ravel(), P / lam * residual, products, [spent]])

    def linearise(self, t: float, state: np.ndarray) -> LinearisedDriven:
        """The Jacobian at a time and a state."""
        s = self.read(state)
        return LinearisedDriven(self, t, s.w.copy(), s.dw.copy())

    def series_start(self, state: np.ndarray, latest: float) -> tuple[float, np.ndarray]:
        """A time t > 0, at most ``latest``, and the state there of a flow with friction b/t.

        From rest w = w_0 + a t^2 + e t^4 + O(t^6), with ``2 (lambda + b) a = -+ g_0 w_0`` and
        ``(12 lambda + 4 b) e = -+ (g_0 a + g_1 w_0)`` where grad L = g_0 + g_1 t^2 + ...
        """
        given, w = self.coefficients, self.read(state).w
        lam, b, ratio = given.inertia(0.0), given.damping(1.0), given.weight(1.0)
        residual = self.residual(w)
        g_0 = self.gradient_map @ residual
        size = np.linalg.norm(self.X, 2) ** 2 / len(self.y) * (w * w).sum(0).max() / 2
        t = min(START * float(np.sqrt(lam / (size + np.abs(g_0).max()))), latest)
        # a t^2, e t^4 and their like: a^2 alone overflows at a tiny lambda
        a = -SIGN * g_0 * w * (t**2 / (2 * (lam + b)))
        residual_1 = self.X @ (w[0] * a[0] - w[1] * a[1]) / 2
        g_1 = self.gradient_map @ residual_1
        e = -SIGN * (g_0 * a + g_1 * w) * (t**2 / (12 * lam + 4 * b))
        moved, speed = w + a + e, (2 * a + 4 * e) / t
        # P = ratio t, and w_+' w_-' = 4 a_+ a_- t^2 + ..., integrated term by term
        R = ratio / lam * t**2 * (residual / 2 + residual_1 / 4)
        cross = a[0] * e[1] + a[1] * e[0]
        Q = 2 * ratio * (a[0] * a[1] + 8 * cross / 6)
        # a/t, since t^2 alone may be 0
        D = b * ((a / t) ** 2 + 2 * (a / t) * (e / t)).sum()
        return t, np.concatenate([moved.ravel(), speed.ravel(), R, Q, [D]])


@dataclass(frozen=True)
class LinearisedDriven:
    r"""The Jacobian J of the system at a time, never formed: c I - J is solved by elimination.

    As in `LinearisedMomentum`, with ``D_+- = c (c lambda + f) +- grad L``.
    """

    system: DrivenSystem
    t: float
    w: np.ndarray
    dw: np.ndarray

    def factor(self, c: complex) -> Solve:
        """Factor c I - J; returns the solver of (c I - J) x = b."""
        X, A, given = self.system.X, self.system.gradient_map, self.system.coefficients
        (n, d), lam, P = X.shape, given.inertia(self.t), given.weight(self.t)
        inertia = c * lam + given.damping(self.t)
        spent = given.damping(self.t) - given.inertia_slope(self.t) / 2
        gradient = A @ self.system.residual(self.w)
        diagonal = c * inertia + SIGN * gradient
        weight = (self.w * self.w / diagonal).sum(0) / 2
        inverse = np.linalg.inv(np.eye(n) + (X * weight) @ A)
        signed_w = SIGN * self.w

        def solve(b: np.ndarray) -> np.ndarray:
            b_w, b_dw = b[: 2 * d].reshape(2, d), b[2 * d : 4 * d].reshape(2, d)
            b_R, b_Q = b[4 * d : 4 * d + n], b[4 * d + n : -1]
            f = lam * b_dw + inertia * b_w
            direct = signed_w * f / diagonal
            rho = inverse @ (X @ (direct[0] + direct[1])) / 2
            x_w = (f - signed_w * (A @ rho)) / diagonal
            x_dw = c * x_w - b_w
            x_R = (b_R + P / lam * rho) / c
            x_Q = (b_Q + 2 * P * (self.dw[1] * x_dw[0] + self.dw[0] * x_dw[1])) / c
            x_D = (b[-1] + spent * (self.dw * x_dw).sum()) / c
            return np.concatenate([x_w.ravel(), x_dw.ravel(), x_R, x_Q, [x_D]])

        return solve

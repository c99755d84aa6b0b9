"""Momentum gradient flow as a first-order system, with a Newton matrix solved in n unknowns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dln_momentum.flows.newton import Solve
from dln_momentum.flows.state import SIGN, FlowState
from dln_momentum.flows.system import InertialSystem


@dataclass(frozen=True)
class MomentumSystem(InertialSystem):
    r"""MGF(lambda) of one diagonal network (docs/theory.md#diagonal-network; poster, section 3).

    .. math:: \lambda w_\pm'' + w_\pm' \pm \nabla L(\theta)\, w_\pm = 0,
              \qquad \theta = (w_+^2 - w_-^2)/4

    The state is (w_+, w_-, w_+', w_-', R, H, D), of size 4d + 2n + 1, with the integrals of
    `FlowState`. R and H have n entries where G would have d: every gradient lies in the row space.
    """

    lam: float

    def inertia(self, t: float) -> float:
        """lambda."""
        return self.lam

    def initial(self, w: np.ndarray, dw: np.ndarray) -> np.ndarray:
        """The state at t = 0 from w and w', both [2, d]."""
        return np.concatenate([w.ravel(), dw.ravel(), np.zeros(2 * self.X.shape[0] + 1)])

    def read(self, states: np.ndarray) -> FlowState:
        """Views of states [..., 4d + 2n + 1]."""
        n, d = self.X.shape
        pair = (*states.shape[:-1], 2, d)
        return FlowState(
            w=states[..., : 2 * d].reshape(pair),
            dw=states[..., 2 * d : 4 * d].reshape(pair),
            residual_integral=states[..., 4 * d : 4 * d + n],
            residual_delayed=states[..., 4 * d + n : -1],
            dissipated=states[..., -1],
        )

    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state."""
        # the solvers spend their time here: slices of one array, no names and no copies
        n, d = self.X.shape
        w, dw = state[: 2 * d].reshape(2, d), state[2 * d : 4 * d].reshape(2, d)
        residual = self.residual(w)
        gradient = self.gradient_map @ residual
        rate = np.empty_like(state)
        rate[: 2 * d] = state[2 * d : 4 * d]
        ddw = rate[2 * d : 4 * d].reshape(2, d)
        np.multiply(gradient, w, out=ddw)
        np.add(dw[0], ddw[0], out=ddw[0])
        np.subtract(dw[1], ddw[1], out=ddw[1])
        ddw /= -self.lam
        rate[4 * d : 4 * d + n] = residual
        rate[4 * d + n : -1] = (state[4 * d : 4 * d + n] - state[4 * d + n : -1]) / self.lam
        rate[-1] = (dw * dw).sum() / 2
        return rate

    def linearise(self, t: float, state: np.ndarray) -> LinearisedMomentum:
        """The Jacobian at a state, at any time."""
        s = self.read(state)
        return LinearisedMomentum(self, s.w.copy(), s.dw.copy())


@dataclass(frozen=True)
class LinearisedMomentum:
    r"""The Jacobian J of the system, never formed: c I - J is solved by elimination.

    With w' eliminated and rho the change of the residual, the rows of w read

    .. math:: D_\pm \delta w_\pm \pm w_\pm A \rho = f_\pm, \quad
              D_\pm = c(c\lambda + 1) \pm \nabla L, \quad A = X^\top/n,

    so that (I + X diag(w_+^2/D_+ + w_-^2/D_-) X^T / (2n)) rho = X (w_+ f_+/D_+ - w_- f_-/D_-)/2 is
    all that is left: n unknowns in place of 4d + 2n + 1.
    """

    system: MomentumSystem
    w: np.ndarray
    dw: np.ndarray

    @cached_property
    def signed_gradient(self) -> np.ndarray:
        """+- grad L, [2, d]."""
        return SIGN * (self.system.gradient_map @ self.system.residual(self.w))

    def factor(self, c: complex) -> Solve:
        """Factor c I - J; returns the solver of (c I - J) x = b."""
        X, A, lam = self.system.X, self.system.gradient_map, self.system.lam
        inertia = c * lam + 1
        diagonal = c * inertia + self.signed_gradient
        weight = (self.w * self.w / diagonal).sum(0) / 2
        # a step solves a dozen times, so that the inverse is cheaper; Newton corrects its rounding
        inverse = np.linalg.inv(np.eye(X.shape[0]) + (X * weight) @ A)
        signed_w, (n, d) = SIGN * self.w, X.shape
        over_diagonal = signed_w / diagonal

        def solve(b: np.ndarray) -> np.ndarray:
            b_w, b_dw = b[: 2 * d].reshape(2, d), b[2 * d : 4 * d].reshape(2, d)
            f = lam * b_dw + inertia * b_w
            direct = over_diagonal * f
            rho = inverse @ (X @ (direct[0] + direct[1])) / 2
            x = np.empty_like(f, shape=b.shape)
            x_w, x_dw = x[: 2 * d].reshape(2, d), x[2 * d : 4 * d].reshape(2, d)
            np.subtract(f, signed_w * (A @ rho), out=x_w)
            x_w /= diagonal
            np.multiply(c, x_w, out=x_dw)
            x_dw -= b_w
            x_R = x[4 * d : 4 * d + n]
            x_R[:] = (b[4 * d : 4 * d + n] + rho) / c
            x[4 * d + n : -1] = (lam * b[4 * d + n : -1] + x_R) / inertia
            x[-1] = (b[-1] + (self.dw * x_dw).sum()) / c
            return x

        return solve

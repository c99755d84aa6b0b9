"""Gradient flow in two forms: the mirror form, in n unknowns, and the direct one in w_+-.

Both have a Newton matrix that is solved in n unknowns.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from dln_momentum.flows.newton import Solve
from dln_momentum.flows.state import SIGN, FlowState
from dln_momentum.flows.system import FlowSystem


@dataclass(frozen=True)
class GradientSystem(FlowSystem):
    """Gradient flow w_+-' = -+ grad L(theta) w_+- of one network, from w_0 [2, d].

    The state ends in the integrals (R, Q, D) of `FlowState`.
    """

    w_0: np.ndarray

    @abstractmethod
    def initial(self) -> np.ndarray:
        """The state at t = 0."""

    @abstractmethod
    def position(self, state: np.ndarray) -> np.ndarray:
        """w [..., 2, d] of a state [..., size]."""

    def read(self, states: np.ndarray) -> FlowState:
        """The named quantities of states [..., size]."""
        n, d = self.X.shape
        w = self.position(states)
        gradient = self.residual(w) @ self.gradient_map.T
        integral = states[..., -n - d - 1 : -d - 1]
        return FlowState(
            w=w,
            dw=-SIGN * gradient[..., None, :] * w,
            residual_integral=integral,
            residual_delayed=integral,
            dissipated=states[..., -1],
            gradient_square=states[..., -d - 1 : -1],
        )

    def residual(self, w: np.ndarray) -> np.ndarray:
        """X theta - y, [..., n]."""
        return ((w * w * SIGN).sum(-2) / 4) @ self.X.T - self.y

    def energy(self, state: np.ndarray, t: float = 0.0) -> float:
        """The loss: without inertia there is no kinetic energy."""
        residual = self.residual(self.position(state))
        return float(residual @ residual) / (2 * self.y.size)

    def rates(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """grad L [d], and the time derivatives of (R, Q, D)."""
        squares = w * w
        residual = self.X @ ((squares[0] - squares[1]) / 4) - self.y
        gradient = self.gradient_map @ residual
        gradient_square = gradient * gradient
        dissipation = gradient_square @ (squares[0] + squares[1]) / 2
        return gradient, np.concatenate([residual, gradient_square, [dissipation]])


class MirrorGradientSystem(GradientSystem):
    r"""Gradient flow through its closed form.

    .. math:: w_{\pm,t} = w_{\pm,0}\, e^{\mp G_t}, \qquad G_t = \int_0^t \nabla L(\theta_s) ds

    so that the n unknowns R determine the flow, and theta satisfies its implicit bias exactly,
    whatever the errors of the integration. The state is (R, Q, D).
    """

    def initial(self) -> np.ndarray:
        """The state at t = 0."""
        return np.zeros(sum(self.X.shape) + 1)

    def position(self, state: np.ndarray) -> np.ndarray:
        """w [..., 2, d] of a state [..., n + d + 1]."""
        G = state[..., : self.X.shape[0]] @ self.gradient_map.T
        return self.w_0 * np.exp(-SIGN * G[..., None, :])

    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state."""
        return self.rates(self.position(state))[1]

    def linearise(self, t: float, state: np.ndarray) -> LinearisedMirror:
        """The Jacobian at a state, at any time."""
        return LinearisedMirror(self, self.position(state))


class DirectGradientSystem(GradientSystem):
    """Gradient flow in w_+- themselves, the check of the mirror form: state (w_+, w_-, R, Q, D)."""

    def initial(self) -> np.ndarray:
        """The state at t = 0."""
        return np.concatenate([self.w_0.ravel(), np.zeros(sum(self.X.shape) + 1)])

    def position(self, state: np.ndarray) -> np.ndarray:
        """w [..., 2, d] of a state [..., n + 3d + 1]."""
        d = self.X.shape[1]
        return state[..., : 2 * d].reshape(*state.shape[:-1], 2, d)

    def sizes(self, state: np.ndarray) -> np.ndarray:
        """|w|, [2d]."""
        return np.abs(state[: 2 * self.X.shape[1]])

    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state."""
        w = self.position(state)
        gradient, rates = self.rates(w)
        return np.concatenate([(-SIGN * gradient * w).ravel(), rates])

    def linearise(self, t: float, state: np.ndarray) -> LinearisedDirect:
        """The Jacobian at a state, at any time."""
        return LinearisedDirect(self, self.position(state).copy())


@dataclass(frozen=True)
class LinearisedMirror:
    """The Jacobian of the mirror form; c I - J is solved through its block of R, n by n."""

    system: GradientSystem
    w: np.ndarray

    def factor(self, c: complex) -> Solve:
        """Factor c I - J; returns the solver of (c I - J) x = b."""
        X, A = self.system.X, self.system.gradient_map
        n, d = X.shape
        squares = self.w * self.w
        total = squares.sum(0)
        gradient = A @ self.system.residual(self.w)
        inverse = np.linalg.inv(c * np.eye(n) + (X * (total / 2)) @ A)

        def solve(b: np.ndarray) -> np.ndarray:
            b_R, b_Q, b_D = np.split(b, [n, n + d])
            x_R = inverse @ b_R
            d_gradient = A @ (c * x_R - b_R)
            x_Q = (b_Q + 2 * gradient * d_gradient) / c
            # d(w_+^2 + w_-^2) = 2 (w_-^2 - w_+^2) dG, and dG = A x_R
            d_total = 2 * (squares[1] - squares[0]) * (A @ x_R)
            x_D = b_D + gradient @ (total * d_gradient + gradient * d_total / 2)
            return np.concatenate([x_R, x_Q, x_D / c])

        return solve


@dataclass(frozen=True)
class LinearisedDirect:
    r"""The Jacobian of the direct form; c I - J is solved by elimination of w.

    With rho the change of the residual the rows of w read ``D_+- dw_+- +- w_+- A rho = b_+-``,
    ``D_+- = c +- grad L``, ``A = X^T/n``, so that the n equations

    .. math:: (I + X \operatorname{diag}(w_+^2/D_+ + w_-^2/D_-) X^\top / (2n)) \rho
              = X (w_+ b_+/D_+ - w_- b_-/D_-)/2

    are all that is left.
    """

    system: GradientSystem
    w: np.ndarray

    def factor(self, c: complex) -> Solve:
        """Factor c I - J; returns the solver of (c I - J) x = b."""
        X, A = self.system.X, self.system.gradient_map
        n, d = X.shape
        squares = self.w * self.w
        gradient = A @ self.system.residual(self.w)
        diagonal = c + SIGN * gradient
        inverse = np.linalg.inv(np.eye(n) + (X * ((squares / diagonal).sum(0) / 2)) @ A)
        signed_w = SIGN * self.w

        def solve(b: np.ndarray) -> np.ndarray:
            b_w, (b_R, b_Q, b_D) = b[: 2 * d].reshape(2, d), np.split(b[2 * d :], [n, n + d])
            direct = signed_w * b_w / diagonal
            rho = inverse @ (X @ (direct[0] + direct[1])) / 2
            d_gradient = A @ rho
            x_w = (b_w - signed_w * d_gradient) / diagonal
            x_Q = (b_Q + 2 * gradient * d_gradient) / c
            d_total = 2 * (self.w * x_w).sum(0)
            x_D = b_D + gradient @ (squares.sum(0) * d_gradient + gradient * d_total / 2)
            return np.concatenate([x_w.ravel(), (b_R + rho) / c, x_Q, x_D / c])

        return solve

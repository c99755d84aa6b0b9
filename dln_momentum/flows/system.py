"""A flow as a first-order system for SciPy: the data, and what every system has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dln_momentum.flows.newton import Linearised
from dln_momentum.flows.state import FlowState

ULP = float(np.finfo(np.float64).eps)
ROUNDING = 4.0
"""Rounding errors of w', in units of what one ulp of w does to it."""


@dataclass(frozen=True)
class FlowSystem(ABC):
    """A flow on X [n, d] and y [n] of one problem; a subclass says which."""

    X: np.ndarray
    y: np.ndarray

    @abstractmethod
    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state."""

    @abstractmethod
    def linearise(self, t: float, state: np.ndarray) -> Linearised:
        """The Jacobian at a time and a state."""

    @abstractmethod
    def read(self, states: np.ndarray) -> FlowState:
        """The named quantities of states [..., size]."""

    @abstractmethod
    def energy(self, state: np.ndarray, t: float = 0.0) -> float:
        """E = F(w) + lambda/2 (||u'||^2 + ||v'||^2), which never grows and bounds the loss."""

    @cached_property
    def gradient_map(self) -> np.ndarray:
        """X^T / n, [d, n]: of the residual, the gradient of L."""
        return np.ascontiguousarray(self.X.T / self.X.shape[0])

    def residual(self, w: np.ndarray) -> np.ndarray:
        """X theta - y, [n], for w [2, d]."""
        squares = w * w
        return self.X @ ((squares[0] - squares[1]) / 4) - self.y

    def curvature(self, w: np.ndarray) -> float:
        """The largest eigenvalue of X diag((w_+^2 + w_-^2)/2) X^T / n, for w [2, d].

        That of the Gauss-Newton part of the flow's linearisation, J J^T instead of J^T J.
        """
        matrix = (self.X * ((w * w).sum(0) / 2)) @ self.gradient_map
        return float(np.linalg.eigvalsh(matrix)[-1])

    def sizes(self, state: np.ndarray) -> np.ndarray:
        """The sizes that errors of the first entries of a state are measured by; none here."""
        return np.empty(0)

    def rounding(self, w: np.ndarray) -> np.ndarray:
        """Rounding errors of the first entries of a state near w [2, d]; none here."""
        return np.empty(0)


class InertialSystem(FlowSystem):
    """lambda w'' + f w' +- grad L w = 0; its state begins with (w_+, w_-, w_+', w_-')."""

    @abstractmethod
    def inertia(self, t: float) -> float:
        """lambda at a time."""

    @property
    def inertia_at_start(self) -> float:
        """lambda, in units of the friction, at t = 0."""
        return self.inertia(0.0)

    def energy(self, state: np.ndarray, t: float = 0.0) -> float:
        """E = F(w) + lambda/2 (||u'||^2 + ||v'||^2)."""
        s = self.read(state)
        residual = self.residual(s.w)
        return residual @ residual / (2 * self.y.size) + self.inertia(t) / 4 * (s.dw**2).sum()

    def sizes(self, state: np.ndarray) -> np.ndarray:
        """|w| + tau |w'| for w and once more for w', [4d], tau the shorter of lambda and its root.

        It stays away from 0 where an entry changes its sign.
        """
        d, lam = self.X.shape[1], self.inertia_at_start
        w, dw = np.abs(state[: 2 * d]), np.abs(state[2 * d : 4 * d])
        return np.tile(w + min(lam, np.sqrt(lam)) * dw, 2)

    def rounding(self, w: np.ndarray) -> np.ndarray:
        """0 for w, and for w' what one ulp of w does to it, a few times over, [4d].

        An ulp of a large w changes X theta, and with it w' by up to the curvature times that ulp,
        or by the frequency of the oscillation times it, if that is less.
        """
        mu = self.curvature(w)
        rate = min(mu, np.sqrt(mu / self.inertia_at_start))
        return np.concatenate(
            [np.zeros(w.size), np.full(w.size, ROUNDING * ULP * np.abs(w).max() * rate)]
        )

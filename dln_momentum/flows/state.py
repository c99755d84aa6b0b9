"""What every form of the flow can be asked for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

SIGN = np.array([[1.0], [-1.0]])
"""The +- of w_+- stacked as [2, d]: lambda w'' + w' + SIGN grad L(theta) w = 0."""


class FlowState(NamedTuple):
    """The quantities at one time, or at T times stacked in front."""

    w: np.ndarray
    """(w_+, w_-), [..., 2, d]."""
    dw: np.ndarray
    """Their time derivatives, [..., 2, d]."""
    R: np.ndarray
    """The integral of X theta - y, [..., n]; X^T R / n is the integral G of grad L."""
    H: np.ndarray
    """lambda H' + H = R, [..., n]; R itself without inertia."""
    D: np.ndarray
    """The integral of ||u'||^2 + ||v'||^2, [...]: the energy that is gone."""
    Q: np.ndarray | None = None
    """The integral of (grad L)^2, [..., d]; carried by gradient flow only."""


class FlowSystem(Protocol):
    """A flow as a first-order system for SciPy."""

    def rhs(self, t: float, state: np.ndarray) -> np.ndarray:
        """The time derivative of the state."""
        ...

    def energy(self, state: np.ndarray) -> float:
        """E = F(w) + lambda/2 (||u'||^2 + ||v'||^2)."""
        ...

    def read(self, states: np.ndarray) -> FlowState:
        """What states [..., size] stand for."""
        ...

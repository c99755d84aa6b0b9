"""The state of a flow by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIGN = np.array([[1.0], [-1.0]])
"""The +- of w_+- stacked as [2, d]: lambda w'' + w' + SIGN grad L(theta) w = 0."""


class FlowState(NamedTuple):
    """The quantities at one time, or at T times stacked in front."""

    w: np.ndarray
    """(w_+, w_-), [..., 2, d]."""
    dw: np.ndarray
    """Their time derivatives, [..., 2, d]."""
    residual_integral: np.ndarray
    """R, the integral of X theta - y, [..., n]; X^T R / n is the integral G of grad L. Where lambda
    or the friction changes, both integrands are multiplied by P/lambda."""
    residual_delayed: np.ndarray
    """H with lambda H' + H = R and H_0 = 0, [..., n]; R itself without inertia."""
    dissipated: np.ndarray
    """D, the integral of ||u'||^2 + ||v'||^2, [...]: the energy dissipated so far."""
    gradient_square: np.ndarray | None = None
    """Q, the integral of (grad L)^2, [..., d]; of gradient flow only."""
    speed_products: np.ndarray | None = None
    """2 int P (u'^2 - v'^2), [..., d]; of flows whose lambda or friction changes only."""

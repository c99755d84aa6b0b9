"""The data of a flow's system, and the maps between residuals and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class SystemData:
    """X [n, d] and y [n] of one problem, which every system of a flow has."""

    X: np.ndarray
    y: np.ndarray

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

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

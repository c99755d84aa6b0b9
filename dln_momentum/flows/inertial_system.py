"""What the systems with inertia, whose state begins with (w_+, w_-, w_+', w_-'), have in common."""

from __future__ import annotations

import numpy as np

from dln_momentum.flows.system_data import SystemData

ULP = float(np.finfo(np.float64).eps)
ROUNDING = 4.0
"""Rounding errors of w', in units of what one ulp of w does to it."""


class InertialSystem(SystemData):
    """A system of lambda w'' + f w' +- grad L w = 0; `inertia_at_start` is lambda/f at first."""

    @property
    def inertia_at_start(self) -> float:
        """lambda, in units of the friction, at t = 0."""
        raise NotImplementedError

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

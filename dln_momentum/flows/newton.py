"""Radau IIA of order 5 for systems whose Newton matrix has structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy.integrate import Radau
from scipy.sparse import csc_matrix

Solve = Callable[[np.ndarray], np.ndarray]


class Linearised(Protocol):
    """A Jacobian J known only through the solution of (c I - J) x = b."""

    def factor(self, c: complex) -> Solve:
        """Prepare c I - J, for a real or complex number c; returns b -> x."""
        ...


class _Shiftable:
    """A Jacobian J for SciPy's expression ``c * I - J``, which becomes ``c - J`` with I = 1."""

    __array_ufunc__ = None  # NumPy scalars then leave the difference to __rsub__

    def __init__(self, linearised: Linearised) -> None:
        self.linearised = linearised

    def __rsub__(self, c: complex) -> Solve:
        """The solver of (c I - J) x = b; of nan where that is singular."""
        try:
            return self.linearised.factor(c)
        except np.linalg.LinAlgError:
            # Newton then does not converge, and SciPy halves the step
            return lambda b: np.full_like(b, np.nan)


class StructuredRadau(Radau):
    """`scipy.integrate.Radau` with the linear algebra of its Newton iteration replaced.

    SciPy factors the dense c I - J, of the size of the state. Here `linearise(t, state)` returns an
    object that solves with c I - J by whatever structure it has. Formulae, error estimate and
    step control are SciPy's (Hairer and Wanner, Solving ODEs II, section IV.8).

    Args:
        fun, t0, y0, t_bound, options: as for `scipy.integrate.Radau`, without ``jac``.
        linearise: (t, state) -> `Linearised`.
    """

    def __init__(
        self,
        fun: Callable[[float, np.ndarray], np.ndarray],
        t0: float,
        y0: np.ndarray,
        t_bound: float,
        linearise: Callable[[float, np.ndarray], Linearised],
        **options: Any,
    ) -> None:
        # an empty Jacobian passes SciPy's shape check at no cost, and is never used
        size = len(y0)
        super().__init__(fun, t0, y0, t_bound, jac=csc_matrix((size, size)), **options)
        self._linearise = linearise
        self.I: Any = 1.0
        self.J: Any = _Shiftable(linearise(self.t, self.y))
        self.jac: Any = self._jacobian
        self.lu: Any = self._factored
        self.solve_lu: Any = lambda solve, b: solve(b)

    def _jacobian(self, t: float, state: np.ndarray, derivative: object = None) -> _Shiftable:
        self.njev += 1
        return _Shiftable(self._linearise(t, state))

    def _factored(self, solve: Solve) -> Solve:
        """Count a factorisation, which the difference c I - J has made."""
        self.nlu += 1
        return solve

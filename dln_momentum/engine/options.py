"""How the engine advances its runs."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from math import inf

import torch

from dln_momentum.arrays import is_integer, is_one_of, is_real
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.problem import Problem
from dln_momentum.wide_rows import spectral_norm

BACKENDS = ("auto", "torch", "numba", "cuda")
PATH_SUMS = ("telescoped", "direct", "gradient_sum")


@dataclass(frozen=True)
class EngineOptions:
    """How runs are advanced; none of it changes their mathematics."""

    backend: str = "auto"
    """``numba`` (compiled, on a CPU), ``cuda`` (compiled, on a GPU, n <= 64, d <= 480, an X of
    up to some thousand entries), ``torch`` (any device), or ``auto`` for the fastest one"""
    path_sums: str = "telescoped"
    """how S_+- is summed: ``telescoped``, from the iterates with one division a step (tests the
    theorem, absolute error about 1e-12); ``direct``, from the iterates term by term (tests the
    theorem, keeps the relative accuracy of a tiny S); ``gradient_sum``, from the sum of the
    gradients (an identity of the update: cheapest, and no test of the theorem)"""
    tol: float = 1e-24
    """a run has converged at the first check (every 10 steps) that finds its training loss at or
    below it; -inf for never"""
    divergence_bound: float = 1e10
    """a run has diverged at the first check that finds its loss above this many times its first
    loss, or not finite"""
    margin: float | None = None
    """of classification: a run has converged too once its loss is at or below l(margin)/n, l the
    loss of a row, which proves that every margin y_i <x_i, theta> is at least this; None: never"""
    gradient_tol: float | None = None
    """a run has converged too once its loss proves ||grad L(theta)||_2 to be at most this; None:
    never"""
    tile_runs: int | None = None
    """runs to a tile; None for the measured rule"""
    num_workers: int = 1
    """threads that advance tiles, each on a core of its own"""

    def __post_init__(self) -> None:
        raise_if_any(
            f"{key} = {value!r} must be {allowed}"
            for key, value, ok, allowed in (
                (
                    "backend",
                    self.backend,
                    is_one_of(self.backend, BACKENDS),
                    f"one of {', '.join(BACKENDS)}",
                ),
                (
                    "path_sums",
                    self.path_sums,
                    is_one_of(self.path_sums, PATH_SUMS),
                    f"one of {', '.join(PATH_SUMS)}",
                ),
                (
                    "tol",
                    self.tol,
                    (is_real(self.tol) and self.tol >= 0) or _is_minus_inf(self.tol),
                    "finite and >= 0, or -inf",
                ),
                (
                    "margin",
                    self.margin,
                    self.margin is None or is_real(self.margin),
                    "finite or null",
                ),
                (
                    "gradient_tol",
                    self.gradient_tol,
                    self.gradient_tol is None
                    or (is_real(self.gradient_tol) and self.gradient_tol > 0),
                    "finite and > 0, or null",
                ),
                (
                    "divergence_bound",
                    self.divergence_bound,
                    self.divergence_bound == inf
                    or (is_real(self.divergence_bound) and self.divergence_bound > 1),
                    "> 1",
                ),
                (
                    "tile_runs",
                    self.tile_runs,
                    self.tile_runs is None or is_integer(self.tile_runs, 1),
                    "an integer >= 1 or null",
                ),
                (
                    "num_workers",
                    self.num_workers,
                    is_integer(self.num_workers, 1),
                    "an integer >= 1",
                ),
            )
            if not ok
        )

    def on(self, problem: Problem, *others: Problem) -> EngineOptions:
        """These options with margin and gradient_tol as a tolerance of the loss.

        A mean of n losses, each >= 0 and falling with its margin, that is at most l(m)/n has none
        above l(m), so that every margin is at least m.

        For logistic and exponential loss |l'| <= l, hence ||grad L|| <= L max_i ||x_i||; for the
        squared loss ||grad L||^2 <= 2 L ||X||^2/n.

        Raises:
            InputError: for a margin with a loss that is not of classification, and for a
                gradient_tol on several problems: a run would end by the data of others.

        >>> problem = Problem(X=[[3.0, 4.0]], y=[1.0], loss="exponential")
        >>> round(EngineOptions(margin=5.0).on(problem).tol, 6)
        0.006738
        >>> EngineOptions(gradient_tol=0.5).on(problem).tol
        0.1
        """
        several = bool(others) or math.prod(problem.X.shape[:-2]) > 1
        if self.gradient_tol is not None and several:
            raise InputError(
                f"gradient_tol = {self.gradient_tol:g} must be null with several problems: "
                "each would have a tolerance of its own"
            )
        tol = self._proven_by(problem)
        return self if tol == -inf else replace(self, tol=max(self.tol, tol))

    def _proven_by(self, problem: Problem) -> float:
        """The largest loss that proves the margin or the gradient; -inf for none of both."""
        found = [-inf]
        if self.margin is not None:
            if not problem.is_classification:
                raise InputError(
                    f"margin = {self.margin:g} must be null with loss = {problem.loss_name}: "
                    "it is of loss = logistic and exponential"
                )
            margin = torch.tensor(self.margin, dtype=torch.float64)
            of_row = problem.loss_of_row.value(margin, torch.ones_like(margin))
            found.append(float(of_row) / problem.n)
        if self.gradient_tol is not None:
            if problem.is_classification:
                size = torch.linalg.vector_norm(problem.X, dim=-1).max()
                found.append(self.gradient_tol / float(size))
            else:
                size = spectral_norm(problem.X)
                found.append(
                    problem.n
                    * (self.gradient_tol / float(size))
                    * (self.gradient_tol / float(size))
                    / 2
                )
        # any loss would do for one that overflows
        return min(max(found), sys.float_info.max)


def _is_minus_inf(value: object) -> bool:
    """Whether a tolerance is -inf, for never; an array is not."""
    return isinstance(value, float) and value == -inf

"""The points of a sweep: every combination of the values of its axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dln_momentum.outputs.quantities import RATES
from dln_momentum.rates import PAIRS, gamma_beta, momentum_problems
from dln_momentum.sweeps.axes import AXES, axis_values

MAX_POINTS = 10**8


@dataclass(frozen=True, eq=False)
class Grid:
    """All combinations of the axes' values, the last axis running fastest.

    A point whose beta is not in [0, 1) is invalid: it keeps its place in the result and is never
    trained. Whatever is not swept is an axis of one value.

    >>> grid = Grid({"lam": np.array([1.0, 4.0]), "eps": np.array([0.1, 2.0])})
    >>> grid.gamma.round(6).tolist(), grid.beta.round(6).tolist(), grid.valid.tolist()
    ([0.01, 4.0, 0.0025, 1.0], [0.9, -1.0, 0.975, 0.5], [True, False, True, True])
    """

    axes: Mapping[str, np.ndarray]
    """the values of each axis, in the order of the dimensions"""

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of more than one value."""
        return tuple(name for name, values in self.axes.items() if len(values) > 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Their sizes."""
        return tuple(len(self.axes[name]) for name in self.dims)

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(self.shape)

    def at_points(self, name: str) -> np.ndarray:
        """The value of one axis at every point, [points]."""
        return self.axes[name][self.places(name)]

    def places(self, name: str) -> np.ndarray:
        """Which value of one axis every point has, [points]."""
        if name not in self.dims:
            return np.zeros(self.size, dtype=np.int64)
        along = np.indices(self.shape, sparse=True)[self.dims.index(name)]
        return np.broadcast_to(along, self.shape).ravel()

    @cached_property
    def gamma(self) -> np.ndarray:
        """The step size at every point, [points]."""
        return self._gamma_beta[0]

    @cached_property
    def beta(self) -> np.ndarray:
        """The momentum at every point, [points]; outside [0, 1) where the point is invalid."""
        return self._gamma_beta[1]

    @cached_property
    def valid(self) -> np.ndarray:
        """Whether there is a run at each point, boolean [points]."""
        positive = np.isfinite(self.gamma) & (self.gamma > 0)
        return positive & (self.beta >= 0) & (self.beta < 1)

    @cached_property
    def _gamma_beta(self) -> tuple[np.ndarray, np.ndarray]:
        given = {name: self.at_points(name) for name in self.axes if name in RATES}
        gamma, beta = gamma_beta(**given)
        # two geometric axes that meet at beta = 0 meet up to rounding
        return gamma, np.where((beta < 0) & (beta > -1e-14), 0.0, beta)


def read_grid(
    swept: Mapping[str, Any],
    momentum: Mapping[str, float],
    fixed: Mapping[str, float],
    errors: list[str],
) -> Grid | None:
    """The grid that a config describes, or None with what is wrong added to the errors.

    Args:
        swept: the ``sweep`` section, None for what is not swept.
        momentum: those of gamma, beta, lam and eps that the optimizer gives and that are not swept;
            all four of a saved config count as (gamma, beta).
        fixed: alpha, seed and data_seed, as far as the config has them.
        errors: a line for each problem.
    """
    given = {name: swept[name] for name in AXES if swept.get(name) is not None}
    before = len(errors)
    axes = {name: axis_values(name, value, errors) for name, value in given.items()}
    errors += _momentum_errors(given, momentum)
    if len(errors) > before:
        return None
    points = {**momentum, **fixed}
    values = {name: np.array([value]) for name, value in points.items()}
    values |= {name: axis for name, axis in axes.items() if axis is not None}
    grid = Grid({name: values[name] for name in AXES if name in values})
    if grid.size > MAX_POINTS:
        errors.append(f"sweep: {grid.size} grid points, must be at most {MAX_POINTS}")
        return None
    return grid


def _momentum_errors(swept: Iterable[str], momentum: Mapping[str, float]) -> list[str]:
    """What is wrong with the swept and the fixed momentum parameters, which must make a pair."""
    axes = [name for name in RATES if name in swept]
    if not axes:
        return momentum_problems("optimizer.", **momentum)
    if {*axes, *momentum} not in map(set, PAIRS):
        return [_no_pair(axes, momentum)]
    return [*_out_of_range(momentum)]


def _no_pair(axes: list[str], fixed: Mapping[str, float]) -> str:
    named = [f"sweep.{name}" for name in axes]
    named += [f"optimizer.{name} = {value:g}" for name, value in fixed.items()]
    allowed = ", ".join(f"({', '.join(pair)})" for pair in PAIRS)
    return f"{', '.join(named)} given: give exactly one of the pairs {allowed}, swept or fixed"


def _out_of_range(fixed: Mapping[str, float]) -> Iterator[str]:
    for name, value in fixed.items():
        allowed = "in [0, 1)" if name == "beta" else "finite and > 0"
        inside = 0 <= value < 1 if name == "beta" else 0 < value < math.inf
        if not inside:
            yield f"optimizer.{name} = {value:g} must be {allowed}"

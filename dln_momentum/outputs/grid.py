"""The points of a grid: all combinations of its axes, of which some hold several settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from dln_momentum.arrays import is_real
from dln_momentum.rates import LAYERS, RATES, gamma_beta, of_layers


@dataclass(frozen=True, eq=False)
class Axis:
    """Settings that move together, one value of each at a place.

    Attributes:
        values: by name; all have one length. An axis of several names is a zipped one.
        spread: whether the axis is a dimension of the result; a setting that all points share is
            an axis of one value that is none.
    """

    values: Mapping[str, Sequence[Any]]
    spread: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def name(self) -> str:
        """The dimension."""
        return "_".join(self.values)


@dataclass(frozen=True, eq=False)
class Grid:
    """All combinations of the places of the axes, the last axis running fastest.

    >>> grid = Grid([Axis({"n": [5, 6]}), Axis({"lam": [1.0, 2.0], "seed": [3, 3]})])
    >>> grid.dims, grid.shape, grid.at_points("n").tolist()
    (('n', 'lam_seed'), (2, 2), [5, 5, 6, 6])
    >>> grid.combinations(["n", "seed"])
    ([{'n': 5, 'seed': 3}, {'n': 6, 'seed': 3}], array([0, 0, 1, 1]))
    """

    axes: Sequence[Axis]

    @property
    def names(self) -> list[str]:
        """Every setting."""
        return [name for axis in self.axes for name in axis.values]

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the result."""
        return tuple(axis.name for axis in self.axes if axis.spread)

    @property
    def shape(self) -> tuple[int, ...]:
        """Their sizes."""
        return tuple(len(axis) for axis in self.axes if axis.spread)

    @property
    def size(self) -> int:
        """The number of points, P."""
        return math.prod(self.shape)

    @cached_property
    def coordinates(self) -> dict[str, xr.Variable]:
        """The values of every setting, over its dimension; a setting that all share has none.

        A dimension of several settings is numbered.
        """
        numbered = {axis.name: np.arange(len(axis)) for axis in self.axes if len(axis.values) > 1}
        return {name: xr.Variable((name,), numbers) for name, numbers in numbered.items()} | {
            name: xr.Variable((axis.name,), labels(values))
            if axis.spread
            else xr.Variable((), labels(values)[0])
            for axis in self.axes
            for name, values in axis.values.items()
        }

    def at_points(self, name: str) -> np.ndarray:
        """The value of one setting at every point, [P]."""
        (axis,) = (axis for axis in self.axes if name in axis.values)
        return labels(axis.values[name])[self._places(axis)]

    def combinations(self, names: Collection[str]) -> tuple[list[dict[str, Any]], np.ndarray]:
        """The different settings of some names, and which of them each point has, int64 [P].

        They are made once, and not to be changed.
        """
        chosen = tuple(name for name in self.names if name in names)
        if chosen not in self._combinations:
            self._combinations[chosen] = self._combined(chosen)
        return self._combinations[chosen]

    @cached_property
    def _combinations(self) -> dict[tuple[str, ...], tuple[list[dict[str, Any]], np.ndarray]]:
        return {}

    def _combined(self, names: Collection[str]) -> tuple[list[dict[str, Any]], np.ndarray]:
        index, choices = np.zeros(self.size, dtype=np.int64), []
        for axis in self.axes:
            own = {name: values for name, values in axis.values.items() if name in names}
            if not own:
                continue
            rows = list(zip(*own.values(), strict=True))
            # numbers and lists that are written alike are one setting
            first = {repr(row): row for row in reversed(rows)}
            number = {text: place for place, text in enumerate(dict.fromkeys(map(repr, rows)))}
            of_place = np.array([number[repr(row)] for row in rows])
            index = index * len(number) + of_place[self._places(axis)]
            choices.append([dict(zip(own, first[text], strict=True)) for text in number])
        found = [
            {name: value for part in parts for name, value in part.items()}
            for parts in itertools.product(*choices)
        ]
        return found, index

    def reduced(self, names: Collection[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """The dimensions that some names vary over, and a point for each place along them.

        The points have the shape of these dimensions; other dimensions are at their first place.
        """
        points = np.arange(self.size).reshape(self.shape)
        spread = [axis for axis in self.axes if axis.spread]
        varies = [any(name in axis.values for name in names) for axis in spread]
        dims = tuple(axis.name for axis, yes in zip(spread, varies, strict=True) if yes)
        return dims, points[tuple(slice(None) if yes else 0 for yes in varies)]

    def _places(self, axis: Axis) -> np.ndarray:
        """The place along an axis at every point, [P]."""
        if not axis.spread:
            return np.zeros(self.size, dtype=np.int64)
        along = np.arange(len(axis)).reshape(
            [len(axis) if other is axis else 1 for other in self.axes if other.spread]
        )
        return np.broadcast_to(along, self.shape).reshape(-1)


def numbered(values: Sequence[Any]) -> dict[Any, int]:
    """The first place of each different value; numbers are equal however they are written.

    >>> numbered([1, 2, 1.0]), numbered([[1, 2], True, 1])
    ({1: 0, 2: 1}, {'[1, 2]': 0, 'True': 1, 1: 2})
    """
    found: dict[Any, int] = {}
    for place, value in enumerate(values):
        found.setdefault(value if is_real(value) or isinstance(value, str) else repr(value), place)
    return found


def labels(values: Sequence[Any]) -> np.ndarray:
    """Values as a coordinate: integers, floats with nan for None, or text.

    >>> labels([5, None]), labels(["a", [1, 2]])
    (array([ 5., nan]), array(['a', '[1, 2]'], dtype=object))
    """
    numeric = [value for value in values if value is not None]
    if all(is_real(value) for value in numeric) and numeric:
        if len(numeric) < len(values):
            return np.array([math.nan if value is None else value for value in values], dtype=float)
        return np.array(values)
    return np.array([value if isinstance(value, str) else str(value) for value in values], object)


def rates_at(grid: Grid, fixed: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """gamma and beta at every point, [P] each; beta may lie outside [0, 1).

    Args:
        grid: the axes, those of gamma, beta, lam and eps among them, or gamma_u and gamma_v.
        fixed: what completes them to a pair, the same at all points.
    """
    given = _given_at(grid, fixed)
    gamma, beta = gamma_beta(**of_layers(given)[0])
    # two geometric axes that meet at beta = 0 meet up to rounding
    return gamma, np.where((beta < 0) & (beta > -1e-14), 0.0, beta)


def layer_ratios_at(grid: Grid, fixed: Mapping[str, Any]) -> np.ndarray:
    """gamma_v/gamma_u at every point, [P]; the arguments are those of `rates_at`."""
    return np.broadcast_to(of_layers(_given_at(grid, fixed))[1], grid.size)


def _given_at(grid: Grid, fixed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names = [name for name in (*RATES, *LAYERS) if name in grid.names]
    found = {name: grid.at_points(name).astype(float) for name in names}
    return found | {name: np.full(grid.size, float(value)) for name, value in fixed.items()}


def have_a_run(gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Whether gamma and beta are those of a run, boolean [P]."""
    return np.isfinite(gamma) & (gamma > 0) & (beta >= 0) & (beta < 1)

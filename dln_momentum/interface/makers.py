"""What a sweep makes from its keys: data, starts and schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.interface.arguments import checked
from dln_momentum.problem import Problem
from dln_momentum.start import Start, uniform


@dataclass(frozen=True, eq=False)
class Maker:
    """A function of some of the keys."""

    make: Callable[..., Any]
    arguments: Mapping[str, str]
    """the argument that each key is"""
    given: Problem | None = None
    """the data, where they are given and not made"""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Maker:
        """A function whose arguments are keys of the same names."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(function).parameters
        return cls(function, {name: name for name, p in parameters.items() if p.kind in kinds})

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """What the function gives for values of the keys.

        Raises:
            InputError: where they are not its arguments.
        """
        given = {self.arguments[k]: v for k, v in values.items() if k in self.arguments}
        try:
            inspect.signature(self.make).bind(**given)
        except TypeError as error:
            name = getattr(self.make, "__name__", repr(self.make))
            raise InputError(f"{name}: {error}; keys must give its arguments") from error
        return self.make(**given)


def problem_maker(problem: Any, keys: Collection[str]) -> Maker:
    """The data, or what makes them: the seed of its own is the key ``data_seed``."""
    if isinstance(problem, Problem) and problem.runs:
        raise InputError(f"problem has run dimensions {list(problem.runs)}; a sweep takes one")
    if not callable(problem):
        checked(problem, None)
        return Maker(lambda: problem, {}, problem)
    maker = Maker.of(problem)
    arguments = dict(maker.arguments)
    only = next(iter(arguments)) if len(arguments) == 1 else "seed"
    if only != "seed" and only in keys:  # it is no seed, but a key of its own
        return maker
    # the seed of a run is another one: that of the data is called data_seed
    data_seed = arguments.pop("data_seed", arguments.pop(only, None))
    return Maker(problem, arguments | ({"data_seed": data_seed} if data_seed else {}))


def start_axis(start: Start) -> dict[str, list[Any]]:
    """The axis that a start with runs is: its scales ``alpha``, or indices ``start``."""
    alpha = start.alpha if np.ndim(start.depth) == 0 else None
    return {"start": [*range(*start.runs)]} if alpha is None else {"alpha": [*alpha]}


def start_maker(start: Any) -> Maker:
    """A start, or what makes it; of one with runs, one of them by its axis."""
    if callable(start):
        return Maker.of(start)
    given = uniform() if start is None else start
    if not getattr(given, "runs", ()):
        return Maker(lambda: given, {})
    ((name, values),) = start_axis(given).items()
    rows = {value: place for place, value in enumerate(values)}
    return Maker(lambda value: _Row(given, rows[value]), {name: "value"})


class _Row(Start):
    """One of the runs of a start, whose numbers may be drawn once d is known."""

    def __init__(self, start: Start, row: int) -> None:
        self._of, self._row = start, row
        depth = np.asarray(start.depth)
        self.depth = float(depth[row] if depth.ndim else depth)

    @property
    def runs(self) -> tuple[int, ...]:
        return ()

    def layers(self, d: int) -> tuple[Tensor, Tensor]:
        u, v = self._of.layers(d)
        return u[self._row], v[self._row]

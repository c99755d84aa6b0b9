"""A grid of runs in one call, as one labelled dataset."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr

from dln_momentum.arrays import array_of
from dln_momentum.engine.footprint import Footprint
from dln_momentum.engine.problems import Problems
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import checked, method_of, rate_errors, with_defaults
from dln_momentum.interface.keywords import unknown
from dln_momentum.interface.makers import Maker, problem_maker, start_axis, start_maker
from dln_momentum.interface.methods import stacked, structure
from dln_momentum.interface.train import train
from dln_momentum.method import Method
from dln_momentum.outputs.grid import Axis, Grid, have_a_run, layer_ratios_at, numbered, rates_at
from dln_momentum.outputs.quantities import SEEDS
from dln_momentum.outputs.results import grid_dataset, piece_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.problem import Problem
from dln_momentum.rates import LAYERS, RATES
from dln_momentum.start import Start

METHOD = {
    "method": "name", "schedule": "schedule", "weight_decay": "weight_decay",
    "decoupled": "decoupled", "decay_until": "decay_until", "dampening": "dampening",
    "kappa": "kappa",
}  # fmt: skip
"""The arguments of `train` that make a `Method`, and its names for them."""

NOT_SWEPT = ("problem", "start", "callbacks", "progress", "records", "trajectories", "num_workers")
"""The arguments of `train` that all runs share."""


def sweep(
    problem: Problem | Callable[..., Problem],
    start: Start | Callable[..., Start] | None = None,
    *,
    schedule: Any = None,
    zip: Sequence[Any] | None = None,
    progress: bool = False,
    **keys: Any,
) -> xr.Dataset:
    """Train every network of a grid: each list or array among the keys is a dimension.

    What the engine can carry together, any gamma, beta, numbers of one kind of schedule, weight
    decay, start, seed and data of one shape, is trained together; the rest one group after the
    other.

    Args:
        problem: the data, shared by the whole grid; or a function that makes them, as `sparse` or
            ``lambda n, data_seed: dln.sparse(n=n, d=30, s=3, seed=data_seed)``. Its arguments may
            be keys; ``data_seed`` is its argument of that name, or its ``seed``, or its only one.
        start: as for `train`, or a function that makes it, as `biased`, whose arguments may be
            keys. The array of a `Start` is a dimension too, the last one: ``alpha`` of a `uniform`
            or `gaussian` start, and of another one ``start``, indices.
        schedule: as for `train`, or a list of schedules, which is an axis; or a function that makes
            one, as ``dln.schedules.Cosine``, whose arguments may be keys.
        zip: names of keys that move together along one dimension, or several lists of names.
        progress: whether to show a bar.
        **keys: arguments of `train` and of these functions; a list, a range or a one-dimensional
            array is an axis. ``records`` is 2: the result holds the end alone.

    Returns:
        Every scalar of the summary and theta, balancedness, s_plus and s_minus over the swept
        dimensions, in the order of the keys, under the names of results.nc; nan where d is smaller
        than elsewhere, and where a pair of rates is not one of a run, as lam = 1 and eps = 2: the
        status is then ``invalid``.

    Raises:
        InputError: for what is not allowed.

    >>> import dln_momentum as dln
    >>> ds = dln.sweep(
    ...     dln.sparse, dln.uniform(0.1), n=[4, 5], d=8, s=1, data_seed=range(3),
    ...     gamma=[0.01, 0.02], beta=0.5, batch_size=[None, 2], max_steps=2000,
    ... )
    >>> dict(ds.status.sizes)
    {'n': 2, 'data_seed': 3, 'gamma': 2, 'batch_size': 2}
    >>> float(ds.path_identity_error.max()) < 1e-10
    True
    """
    names = [zip] if isinstance(zip, str) else zip
    if names is not None and not isinstance(names, list | tuple):
        raise InputError(f"zip = {zip!r} must be a list of names of keys, or several lists")
    if schedule is not None and not callable(schedule):
        keys |= {"schedule": schedule}
    axes = {key: _values(value) for key, value in keys.items() if _is_axis(key, value)}
    others = {key: value for key, value in keys.items() if key not in axes}
    if isinstance(start, Start) and start.runs:
        if len(start.runs) > 1:
            raise InputError(f"start has run dimensions {[*start.runs]}; a sweep takes one at most")
        # last, as the start's own run dimension is when shapes are broadcast
        axes |= start_axis(start)
    points = _Points(
        problem_maker(problem, keys),
        start_maker(start),
        Maker.of(schedule) if callable(schedule) else None,
        axes,
        others,
        zip,
    )
    raise_if_any(points.errors())
    raise_if_any(points.size_errors())
    trained = [points.train(group, progress=progress) for group in points.groups]
    gamma, beta = points.rates
    return grid_dataset(trained, points.grid, gamma, beta, points.data, valid=points.valid)


@dataclass(frozen=True, eq=False)
class _Points:
    """The points of the grid, and the groups of them that are trained together."""

    problem: Maker
    start: Maker
    schedule: Maker | None
    """None where schedules are given as such, or not at all"""
    axes: Mapping[str, list[Any]]
    others: Mapping[str, Any]
    zipped: Sequence[Any] | None

    @property
    def _makers(self) -> list[Maker]:
        return [self.problem, self.start, *([self.schedule] if self.schedule else [])]

    @property
    def _groups(self) -> Sequence[Any]:
        """The lists of keys that move together."""
        groups: Any = self.zipped or []
        return [groups] if groups and isinstance(groups[0], str) else groups

    @property
    def _in_zip(self) -> list[str]:
        return [str(name) for group in self._groups for name in group]

    @cached_property
    def grid(self) -> Grid:
        """The axes, in the order of the keys; the array of a start last."""
        found, done = [], set[str]()
        for name in self.axes:
            together = next((group for group in self._groups if name in group), (name,))
            if name not in done:
                found.append(Axis({other: self.axes[other] for other in together}))
            done |= set(together)
        return Grid(found)

    def errors(self) -> Iterator[str]:
        """What is wrong with the keys themselves; `train` and the makers check values."""
        own = set(inspect.signature(train).parameters) - set(NOT_SWEPT)
        for key in (*self.axes, *self.others):
            if key == "data_seed" and key not in self.problem.arguments:
                yield (
                    "data_seed needs problem as a function of the seed, as "
                    "lambda seed: dln.sparse(n=20, d=30, s=3, seed=seed)"
                )
                continue
            given = self.problem.given
            if given is not None and key in ("n", "d"):
                yield (
                    f"{key}: the data are given, with {key} = {getattr(given, key)}; give a "
                    f"function that makes them, as lambda {key}: dln.sparse(...)"
                )
                continue
            made = sorted({name for maker in self._makers for name in maker.arguments})
            known = key in own or key in made
            if not known and (key in self.axes or key not in NOT_SWEPT):
                (line,) = unknown([key], [*own, *made], "key")
                yield (
                    f"{line}; keys are the arguments of dln.train"
                    + (f" and of the functions given: {', '.join(made)}" if made else "")
                )
        for key in ("trajectories", "curvature"):
            if key in self.axes or self.others.get(key):
                yield (
                    f"{key}: a sweep holds the end of each run alone; dln.train(..., {key}=True) "
                    "takes arrays too, and its to_dataset() holds the path"
                )
        for key in SEEDS:
            if not all(isinstance(value, int) for value in self.axes.get(key, ())):
                yield f"{key} = {self.axes[key]!r} must be a list of integers"
        for key, values in self.axes.items():
            if len(numbered(values)) < len(values) and key not in self._in_zip:
                yield f"{key} = {values!r} has a value twice; each may occur once"
            if not values:
                yield f"{key} = [] must have one value or more"
        for name in self._in_zip:
            if name not in self.axes:
                yield f"zip: {name} must be a key with a list of values"
        for group in self._groups:
            lengths = {name: len(self.axes[name]) for name in group if name in self.axes}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
                yield f"zip: keys that move together need as many values each: {told}"
        given = {}
        for key, value in self._rates_given.items():
            try:
                given[key] = array_of(key, value)
            except InputError as error:
                yield from error.problems
            else:
                if given[key].ndim > 1:
                    yield f"{key} has shape {given[key].shape}; must be a number or a list of them"
        if len(given) == len(self._rates_given):
            yield from rate_errors(given)

    def size_errors(self) -> Iterator[str]:
        """What is wrong with a grid whose results alone would not fit, however small its runs."""
        axes = [f"{name} [{len(values)}]" for name, values in self.axes.items()]
        least = Footprint(0, n=1, d=1, points=math.prod(self.grid.shape))
        yield from least.errors(", ".join(axes))

    @cached_property
    def _rates_given(self) -> dict[str, Any]:
        every = {**self.axes, **self.others}
        names = (*RATES, *LAYERS)
        return with_defaults({k: every[k] for k in names if every.get(k) is not None})

    @cached_property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """gamma and beta at every point, [P] each; beta may lie outside [0, 1)."""
        return rates_at(self.grid, self._fixed_rates)

    @property
    def _fixed_rates(self) -> dict[str, Any]:
        return {key: rate for key, rate in self._rates_given.items() if key not in self.axes}

    @cached_property
    def valid(self) -> np.ndarray:
        """Where there is a run, boolean [P]."""
        return have_a_run(*self.rates)

    @cached_property
    def data(self) -> tuple[list[Problem], np.ndarray, list[str]]:
        """The problems, which of them each point has, and the axes that choose it."""
        made, index = self._made(self.problem.arguments, self.problem)
        wrong = [type(p).__name__ for p in made if not isinstance(p, Problem)]
        raise_if_any(f"problem must make a Problem; it made a {kind}" for kind in wrong[:1])
        return made, index, [name for name in self.axes if name in self.problem.arguments]

    @cached_property
    def _starts(self) -> tuple[list[Start], np.ndarray]:
        made, index = self._made(self.start.arguments, self.start)
        return [checked(self.data[0][0], start) for start in made], index

    @cached_property
    def _methods(self) -> tuple[list[Method], np.ndarray]:
        """The methods without depth and rates of the layers, and which of them each point has."""
        made_of = (*METHOD, *(self.schedule.arguments if self.schedule else ()))
        return self._made(made_of, self._method)

    def _made(
        self, keys: Collection[str], make: Callable[[dict[str, Any]], Any]
    ) -> tuple[list[Any], np.ndarray]:
        """What is made of each combination of some axes, and which of them each point has."""
        settings, index = self.grid.combinations([name for name in self.axes if name in keys])
        return [make({**self.others, **setting}) for setting in settings], index

    def _method(self, values: dict[str, Any]) -> Method:
        schedule = self.schedule(values) if self.schedule else values.get("schedule")
        given = {name: values[key] for key, name in METHOD.items() if key in values}
        return method_of(given | {"schedule": schedule})

    @cached_property
    def _shared(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        own = set(inspect.signature(train).parameters)
        own -= {*RATES, *LAYERS, *METHOD, "seed", *NOT_SWEPT}
        return self.grid.combinations([name for name in self.axes if name in own])

    @property
    def _kinds(self) -> np.ndarray:
        """A number for each kind of method and start, which one engine carries, int64 [P]."""
        methods, of_method = self._methods
        starts, of_start = self._starts
        texts = [structure(method) for method in methods]
        structures = np.array([texts.index(text) for text in texts])
        deep = np.array([start.is_deep for start in starts])
        layered = layer_ratios_at(self.grid, self._fixed_rates) != 1
        found = np.column_stack([structures[of_method], deep[of_start], layered])
        return np.unique(found, axis=0, return_inverse=True)[1].reshape(-1)

    @property
    def groups(self) -> list[np.ndarray]:
        """The valid points by what runs of one call of `train` share."""
        problems, of_data, _ = self.data
        shapes = np.array([p.layout for p in problems])
        shared = np.column_stack([self._shared[1], shapes[of_data], self._kinds])
        shared[~self.valid] = -1
        return [
            np.flatnonzero((shared == key).all(axis=1))
            for key in np.unique(shared, axis=0)
            if key[0] >= 0
        ]

    def train(self, points: np.ndarray, *, progress: bool) -> xr.Dataset:
        """Train the runs of one group."""
        problems, of_data, _ = self.data
        numbers, place = np.unique(of_data[points], return_inverse=True)
        data = Problems([problems[number] for number in numbers], torch.from_numpy(place))
        starts, of_start = self._starts
        chosen, which = np.unique(of_start[points], return_inverse=True)
        layers = [starts[number].layers(data.first.d) for number in chosen]
        u, v = (torch.stack(layer)[which] for layer in zip(*layers, strict=True))
        own = set(inspect.signature(train).parameters) - {*RATES, *LAYERS, *METHOD}
        shared = {k: v for k, v in self.others.items() if k in own}
        shared |= self._shared[0][self._shared[1][points[0]]]
        if "seed" in self.axes:
            shared["seed"] = self.grid.at_points("seed")[points]
        methods, of_method = self._methods
        method = stacked([methods[number] for number in of_method[points]])
        shared |= {key: getattr(method, name) for key, name in METHOD.items()}
        options = {"records": 2, "trajectories": False, "progress": progress} | shared
        depth = np.array([float(starts[number].depth) for number in chosen])[which]
        start = Start(u, v, depth=depth)
        run = train(data, start, **self._rates_of(points), **options)
        return piece_dataset(run.measure(end_of_runs, None), points)

    def _rates_of(self, points: np.ndarray) -> dict[str, np.ndarray]:
        gamma, beta = (rate[points] for rate in self.rates)
        if not set(LAYERS) & {*self.axes, *self.others}:
            return {"gamma": gamma, "beta": beta}
        layers = {key: self._rates_given[key] for key in LAYERS}
        swept = {key: self.grid.at_points(key)[points] for key in LAYERS if key in self.axes}
        return {"beta": beta} | layers | swept


def _is_axis(key: str, value: Any) -> bool:
    axes = np.ndim(value) - (key == "kappa")  # which is a vector
    return key not in NOT_SWEPT and not isinstance(value, str) and axes > 0


def _values(value: Any) -> list[Any]:
    """The values of an axis as Python has them."""
    array = value if isinstance(value, list | tuple | range) else np.asarray(value)
    return [v.item() if isinstance(v, np.generic) else v for v in array]

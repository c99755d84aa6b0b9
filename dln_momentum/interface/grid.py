"""A grid of runs in one call, as one labelled dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from dln_momentum.errors import InputError
from dln_momentum.interface.arguments import array_of
from dln_momentum.interface.run import Run
from dln_momentum.interface.train import train
from dln_momentum.outputs.results import LONG_NAMES
from dln_momentum.problem import Problem
from dln_momentum.start import Start

RATES = ("gamma", "beta", "lam", "eps")
AXES = (*RATES, "seed", "data_seed")
VECTORS = ("theta", "balancedness", "s_plus", "s_minus")


def sweep(
    problem: Problem | Callable[[int], Problem],
    start: Start | None = None,
    *,
    data_seed: Any = None,
    progress: bool = False,
    **keys: Any,
) -> xr.Dataset:
    """Train every network of a grid: each array among the axes is a dimension of the result.

    Args:
        problem: the data, shared by the whole grid; or, with ``data_seed``, a function from a seed
            to a problem, ``lambda seed: dln.sparse(n=20, d=30, s=3, seed=seed)``.
        start: as for `train`, one start; alpha of a `uniform` start may be one array.
        data_seed: seeds of the data, a dimension of their own.
        progress: whether to show a bar for each data set.
        **keys: gamma, beta, lam, eps and seed, numbers or one-dimensional arrays, are the axes;
            the rest as for `train`.

    Returns:
        Every scalar of the summary and theta, balancedness, s_plus and s_minus over the swept
        dimensions, which are in the order they were given; status as text.

    Raises:
        InputError: for what is not allowed.

    >>> import dln_momentum as dln
    >>> ds = dln.sweep(
    ...     lambda seed: dln.sparse(n=5, d=8, s=1, seed=seed), dln.uniform(0.1),
    ...     gamma=[0.01, 0.02], beta=[0.5, 0.9], data_seed=range(3),
    ... )
    >>> dict(ds.status.sizes), float(ds.kkt_residual.max()) < 1e-10
    ({'gamma': 2, 'beta': 2, 'data_seed': 3}, True)
    """
    axes, others = {}, {}
    for key, value in keys.items():
        is_axis = key in (*RATES, "seed") and value is not None and np.ndim(value) > 0
        (axes if is_axis else others)[key] = value
    values = {key: _axis(key, value) for key, value in axes.items()}
    alpha = () if start is None else start.runs
    if len(alpha) > 1:
        raise InputError([f"start has run dimensions {list(alpha)}; a sweep takes one at most"])
    names = [*values, *(["start"] if alpha else [])]
    mesh = np.meshgrid(*values.values(), *([np.arange(alpha[0])] if alpha else []), indexing="ij")
    grid = dict(zip(names, mesh, strict=True))
    grid.pop("start", None)
    if data_seed is None:
        if not isinstance(problem, Problem):
            raise InputError(["problem is a function of a seed: give data_seed, as range(20)"])
        return _dataset(train(problem, start, progress=progress, **grid, **others), names, values)
    seeds = _axis("data_seed", data_seed)
    if isinstance(problem, Problem):
        raise InputError(
            ["data_seed needs problem as a function of the seed, as "
             "lambda seed: dln.sparse(n=20, d=30, s=3, seed=seed)"]
        )  # fmt: skip
    parts = [
        _dataset(train(problem(int(s)), start, progress=progress, **grid, **others), names, values)
        for s in seeds
    ]
    together = xr.concat(parts, xr.IndexVariable("data_seed", seeds.astype(np.int64)))
    order = (*names, "data_seed")
    return together.transpose(*order, ...)


def _axis(key: str, value: Any) -> np.ndarray:
    array = np.asarray(list(value) if isinstance(value, range) else value)
    if key in ("seed", "data_seed"):
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise InputError([f"{key} = {value!r} must be a list of integers"])
        return array
    array = array_of(key, array)
    if array.ndim != 1:
        raise InputError([f"{key} has {array.ndim} dimensions; an axis of a sweep has one"])
    return array


def _dataset(run: Run, names: list[str], values: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The runs over named dimensions."""
    found: dict[str, Any] = {"status": (names, np.asarray(run.status))}
    for name, value in run.summary.items():
        if name not in values:
            found[name] = (names, np.asarray(value))
    for name in VECTORS:
        found[name] = ((*names, "coordinate"), getattr(run, name))
    dataset = xr.Dataset(found, coords=dict(values))
    for name, variable in dataset.variables.items():
        if str(name) in LONG_NAMES:
            variable.attrs["long_name"] = LONG_NAMES[str(name)]
    return dataset

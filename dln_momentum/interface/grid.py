"""A grid of runs in one call, as one labelled dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr

from dln_momentum.engine.problems import Problems
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import array_of, checked
from dln_momentum.interface.train import train
from dln_momentum.outputs.quantities import RATES, SEEDS
from dln_momentum.outputs.results import grid_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.problem import Problem
from dln_momentum.start import Start, uniform


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
        start: as for `train`; its parameters may be one-dimensional arrays. They are the dimension
            ``alpha`` of a `uniform` or `gaussian` start, and of another one the dimension ``start``
            of indices.
        data_seed: seeds of the data, a dimension of their own.
        progress: whether to show a bar.
        **keys: gamma, beta, lam, eps and seed, numbers or one-dimensional arrays, are the axes;
            the rest as for `train`, but ``records`` is 2: the result holds the end alone.

    Returns:
        Every scalar of the summary and theta, balancedness, s_plus and s_minus over the swept
        dimensions, under the names of results.nc. The dimensions are in the order of the keys, then
        data_seed, then that of the start.

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
    axes, others = {}, dict[str, Any](records=2, trajectories=False)
    for key, value in keys.items():
        is_axis = key in (*RATES, "seed") and value is not None and np.ndim(value) > 0
        (axes if is_axis else others)[key] = value
    values = {key: _axis(key, value) for key, value in axes.items()}
    start = uniform() if start is None else start
    runs = getattr(start, "runs", ())  # `train` refuses what is not a Start
    if len(runs) > 1:
        raise InputError([f"start has run dimensions {[*runs]}; a sweep takes one at most"])
    data = _data(problem, data_seed)
    places = {name: np.arange(len(axis)) for name, axis in values.items()}
    if not isinstance(data, Problem):
        values["data_seed"] = _axis("data_seed", data_seed).astype(np.int64)
        places["data_seed"] = np.arange(len(data))
    if runs:
        # last, as the start's own run dimension is when shapes are broadcast
        index = np.arange(runs[0])
        name, axis = ("start", index) if start.alpha is None else ("alpha", start.alpha)
        values[name], places[name] = axis, index
    mesh = dict(zip(places, np.meshgrid(*places.values(), indexing="ij"), strict=True))
    of_runs = data
    if not isinstance(data, Problem):
        of_runs = Problems(data, torch.from_numpy(mesh["data_seed"]))
    grid = {name: axis[mesh[name]] for name, axis in values.items() if name in axes}
    run = train(of_runs, start, progress=progress, **grid, **others)
    gamma, beta = (getattr(run.snapshot, name).reshape(-1).numpy() for name in ("gamma", "beta"))
    problems = [data] if isinstance(data, Problem) else data
    return grid_dataset(run.measure(end_of_runs), values, gamma, beta, problems)


def _data(problem: Problem | Callable[[int], Problem], data_seed: Any) -> Problem | list[Problem]:
    """The data that all runs share, or one problem for each data seed."""
    if data_seed is None:
        if callable(problem):
            raise InputError(["problem is a function of a seed: give data_seed, as range(20)"])
        checked(problem, None)
        if problem.runs:
            raise InputError(
                [f"problem has run dimensions {list(problem.runs)}; a sweep takes one"]
            )
        return problem
    if not callable(problem):
        raise InputError(
            ["data_seed needs problem as a function of the seed, as "
             "lambda seed: dln.sparse(n=20, d=30, s=3, seed=seed)"]
        )  # fmt: skip
    found = [problem(int(seed)) for seed in _axis("data_seed", data_seed)]
    wrong = [type(p).__name__ for p in found if not isinstance(p, Problem)]
    raise_if_any(f"problem must make a Problem of a seed; it made a {kind}" for kind in wrong[:1])
    return found


def _axis(key: str, value: Any) -> np.ndarray:
    array = np.asarray(list(value) if isinstance(value, range) else value)
    if key in SEEDS:
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise InputError([f"{key} = {value!r} must be a list of integers"])
        return array
    array = array_of(key, array)
    if array.ndim != 1:
        raise InputError([f"{key} has {array.ndim} dimensions; an axis of a sweep has one"])
    return array

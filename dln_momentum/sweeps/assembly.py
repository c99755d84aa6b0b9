"""From the config of a sweep to its grid and to everything its runs are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from dln_momentum.cli.assembly import (
    Rates,
    Setup,
    device_of,
    engine_options,
    is_valid,
    network,
    streams,
    tell_if_seed_is_unread,
    try_build,
)
from dln_momentum.config import Gaussian, Sweep, read
from dln_momentum.data import load
from dln_momentum.engine.problems import Problems
from dln_momentum.errors import raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem
from dln_momentum.sweeps.grid import Grid, read_grid
from dln_momentum.sweeps.memory import Footprint


def build(config: DictConfig) -> tuple[Setup, Grid]:
    """Check the config of a sweep and build what it describes; nothing is written.

    The runs of the setup are the valid points of the grid, in their order.

    Raises:
        InputError: listing every key that is not allowed, those of the data included; or a sweep
            that would not fit into ``sweep.memory_gb``.
    """
    errors: list[str] = []
    keys = read(config, errors, Sweep)
    device = device_of(keys, errors)
    grid = _grid(keys, errors)
    problem = drawn = None
    if is_valid("data", errors):
        problem = try_build(lambda: load(**_data(keys, grid, 0)), errors)
    if problem is not None:
        drawn = try_build(lambda: streams(keys, problem.n, _seeds(grid)), errors)
    if problem is not None and is_valid("model", errors):
        # one network of the grid's first alpha and seed, to hear what is wrong with any
        try_build(lambda: network(keys.model, problem.d, keys.seed), errors)
    raise_if_any(errors)
    assert grid is not None
    assert problem is not None
    assert drawn is not None
    tell_if_seed_is_unread(keys, *drawn)
    each = [problem, *_other_problems(keys, grid, problem)]
    problems = Problems(each, torch.from_numpy(grid.places("data_seed")[grid.valid]))
    gamma, beta = (torch.from_numpy(rate[grid.valid]) for rate in (grid.gamma, grid.beta))
    raise_if_any(_size_problems(keys, grid, problems))
    return Setup(
        keys,
        problems.to(device),
        _networks(keys, grid, problem.d).to(device),
        Rates(gamma.to(device), beta.to(device)),
        *drawn,
        engine_options(keys),
        _data_name(each),
    ), grid


def _grid(keys: Sweep, errors: list[str]) -> Grid | None:
    momentum = {name: value for name, value in vars(keys.optimizer).items() if value is not None}
    fixed = {
        "alpha": getattr(keys.model, "alpha", None),
        "seed": keys.seed,
        "data_seed": getattr(keys.data, "seed", None),
    }
    before = len(errors)
    for name, section in (("alpha", "model.alpha"), ("data_seed", "data.seed")):
        if fixed[name] is None and getattr(keys.sweep, name) is not None:
            errors.append(f"sweep.{name} is given, but this config has no {section} to sweep")
    present = {name: value for name, value in fixed.items() if value is not None}
    grid = read_grid(vars(keys.sweep), momentum, present, errors)
    if len(errors) > before or grid is None:
        return None
    if not grid.valid.any():
        errors.append(f"sweep: none of the {grid.size} grid points has beta in [0, 1)")
    return grid


def _data(keys: Sweep, grid: Grid | None, index: int) -> dict[str, Any]:
    """The data config with one of the seeds on the axis."""
    given = vars(keys.data)
    if grid is None or "data_seed" not in grid.axes:
        return given
    return given | {"seed": int(grid.axes["data_seed"][index])}


def _other_problems(keys: Sweep, grid: Grid, first: Problem) -> list[Problem]:
    errors: list[str] = []
    found = []
    for index in range(1, len(grid.axes.get("data_seed", [0]))):
        problem = try_build(lambda i=index: load(**_data(keys, grid, i)), errors)
        if problem is not None:
            found.append(problem)
    errors += [
        f"sweep.data_seed: {problem.name} has (n, d) = {(problem.n, problem.d)}, "
        f"{first.name} has {(first.n, first.d)}; one sweep needs one shape"
        for problem in found
        if (problem.n, problem.d) != (first.n, first.d)
    ]
    raise_if_any(errors)
    return found


def _data_name(problems: Sequence[Problem]) -> str:
    first, others = problems[0].name, len(problems) - 1
    return f"{first} and {others} more data seeds" if others else first


def _seeds(grid: Grid | None) -> int | list[int]:
    """One seed that all runs share, or one for each."""
    if grid is None:
        return 0
    if "seed" not in grid.dims:
        return int(grid.axes["seed"][0])
    return grid.at_points("seed")[grid.valid].tolist()


def _networks(keys: Sweep, grid: Grid, d: int) -> DiagonalLinearNet:
    """Every run's start; each (alpha, seed) is drawn once."""
    alphas = grid.axes.get("alpha", np.array([np.nan]))
    random = isinstance(keys.model, Gaussian)
    seeds = grid.axes["seed"] if random else grid.axes["seed"][:1]
    starts = [
        network(dataclasses.replace(keys.model, **alpha), d, int(seed))
        for alpha in ({"alpha": a} if "alpha" in grid.axes else {} for a in alphas.tolist())
        for seed in seeds
    ]
    places = grid.places("alpha") * len(seeds) + (grid.places("seed") if random else 0)
    chosen = torch.from_numpy(places[grid.valid])
    u, v = (torch.stack([getattr(net, name).detach() for net in starts]) for name in ("u", "v"))
    return DiagonalLinearNet(u[chosen], v[chosen])


def _size_problems(keys: Sweep, grid: Grid, problems: Problems) -> Iterator[str]:
    runs, problem = int(grid.valid.sum()), problems.first
    footprint = Footprint(
        runs=runs,
        n=problem.n,
        d=problem.d,
        test_rows=_test_rows(problem),
        data_sets=len(problems.each) + problems.copies,
        records=min(keys.trainer.records, keys.trainer.max_steps),
        path_sums=keys.engine.path_sums,
        trajectories=keys.sweep.trajectories,
    )
    if footprint.gigabytes > keys.sweep.memory_gb:
        yield (
            f"sweep.memory_gb = {keys.sweep.memory_gb:g} is less than the "
            f"{footprint.gigabytes:.3g} GiB that {grid.size} runs of (n, d) = "
            f"{(problem.n, problem.d)} would take; raise it, or make the grid smaller"
        )


def _test_rows(problem: Problem) -> int:
    return 0 if problem.X_test is None else problem.X_test.shape[-2]

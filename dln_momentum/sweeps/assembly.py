"""From the config of a sweep to its grid and to everything its runs are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from dln_momentum.cli.setup import (
    Rates,
    Reader,
    Setup,
    built,
    device_of,
    engine_options,
    load_problem,
    momentum_of,
    network,
    plan_of,
    seed_of,
    speed_of,
    start_of,
    streams,
    tell_if_seed_is_unread,
)
from dln_momentum.engine.problems import Problems
from dln_momentum.errors import raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.outputs.quantities import RATES
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.record_plan import RecordPlan
from dln_momentum.sweeps.axes import AXES
from dln_momentum.sweeps.grid import Grid, read_grid
from dln_momentum.sweeps.memory import Footprint


def build(config: DictConfig) -> tuple[Setup, Grid]:
    """Check the config of a sweep and build what it describes; nothing is written.

    The runs of the setup are the valid points of the grid, in their order.

    Raises:
        InputError: listing every key that is not allowed, those of the data included; or a sweep
            that would not fit into ``sweep.memory_gb``.
    """
    reader = Reader(config)
    seed = seed_of(reader)
    device, options, plan = device_of(reader), engine_options(reader), plan_of(reader)
    trajectories = reader.value("sweep.trajectories", bool)
    memory = reader.value("sweep.memory_gb", float)
    if memory is not None and not memory > 0:
        reader.errors.append(f"sweep.memory_gb = {memory:g} must be > 0")
    if config.trainer.gradient == "autograd":
        reader.errors.append(
            "trainer.gradient = 'autograd' trains one network; a sweep needs closed_form"
        )
    grid = _grid(reader, seed)
    first = load_problem(reader, **_data_seed(grid, 0))
    drawn = streams(reader, first and first.n, _seeds(grid))
    start = start_of(reader, seed)
    speed_of(reader)
    if first is not None and start is not None:
        network(reader, start, first.d)
    reader.finish()
    grid, first, plan, drawn = built(grid), built(first), built(plan), built(drawn)
    tell_if_seed_is_unread(config, *drawn)
    each = [first, *_other_problems(reader, grid, first)]
    problems = Problems(each, torch.from_numpy(grid.places("data_seed")[grid.valid]))
    gamma, beta = (torch.from_numpy(rate[grid.valid]) for rate in (grid.gamma, grid.beta))
    raise_if_any(_size_problems(config, grid, problems, plan, built(memory), built(trajectories)))
    return Setup(
        config,
        problems.to(device),
        _networks(reader, grid, first.d).to(device),
        Rates(gamma.to(device), beta.to(device)),
        *drawn,
        built(options),
        plan,
        _data_name(each),
    ), grid


def _grid(reader: Reader, seed: int | None) -> Grid | None:
    config, errors = reader.config, reader.errors
    swept = {name: reader.value(f"sweep.{name}", Any) for name in AXES}
    reader.section("optimizer", Momentum.from_pair)
    momentum = {
        key: reader.value(f"optimizer.{key}", float)
        for key in config.optimizer
        if swept.get(key) is None
    }
    fixed = {"alpha": config.model.get("alpha"), "seed": seed, "data_seed": config.data.get("seed")}
    before = len(errors)
    for name, key in (("alpha", "model.alpha"), ("data_seed", "data.seed")):
        if fixed[name] is None and swept[name] is not None:
            errors.append(f"sweep.{name} is given, but this config has no {key} to sweep")
    present = {name: value for name, value in fixed.items() if value is not None}
    if None in momentum.values():
        return None
    if len(momentum) == len(RATES):
        # a saved config gives all four; gamma and beta are what ran
        momentum_of(reader)
        momentum = {key: momentum[key] for key in ("gamma", "beta")}
    grid = read_grid(swept, momentum, present, errors)
    if len(errors) > before or grid is None:
        return None
    if not grid.valid.any():
        errors.append(f"sweep: none of the {grid.size} grid points has beta in [0, 1)")
    return grid


def _data_seed(grid: Grid | None, index: int) -> dict[str, int]:
    """The seed of one data set on the axis, in place of ``data.seed``."""
    if grid is None or "data_seed" not in grid.axes:
        return {}
    return {"seed": int(grid.axes["data_seed"][index])}


def _other_problems(reader: Reader, grid: Grid, first: Problem) -> list[Problem]:
    seeds = range(1, len(grid.axes.get("data_seed", [0])))
    loaded = (load_problem(reader, **_data_seed(grid, index)) for index in seeds)
    found = [problem for problem in loaded if problem is not None]
    reader.errors += [
        f"sweep.data_seed: {problem.name} has (n, d) = {(problem.n, problem.d)}, "
        f"{first.name} has {(first.n, first.d)}; one sweep needs one shape"
        for problem in found
        if (problem.n, problem.d) != (first.n, first.d)
    ]
    raise_if_any(reader.errors)
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


def _networks(reader: Reader, grid: Grid, d: int) -> DiagonalLinearNet:
    """Every run's start; each (alpha, seed) is drawn once."""
    random = reader.config.model.init == "gaussian"
    seeds = grid.axes["seed"] if random else grid.axes["seed"][:1]
    scales: list[dict[str, float]] = [{}]
    if "alpha" in grid.axes:
        scales = [{"alpha": alpha} for alpha in grid.axes["alpha"].tolist()]
    starts = [built(start_of(reader, int(seed), **scale)) for scale in scales for seed in seeds]
    places = grid.places("alpha") * len(seeds) + (grid.places("seed") if random else 0)
    chosen = torch.from_numpy(places[grid.valid])
    u, v = (torch.stack(layers) for layers in zip(*(s.layers(d) for s in starts), strict=True))
    return DiagonalLinearNet(u[chosen], v[chosen])


def _size_problems(
    config: DictConfig,
    grid: Grid,
    problems: Problems,
    plan: RecordPlan,
    memory: float,
    trajectories: bool,
) -> Iterator[str]:
    runs, problem = int(grid.valid.sum()), problems.first
    footprint = Footprint(
        runs=runs,
        n=problem.n,
        d=problem.d,
        test_rows=_test_rows(problem),
        data_sets=len(problems.each) + problems.copies,
        records=min(plan.records, plan.max_steps),
        path_sums=config.engine.path_sums,
        trajectories=trajectories,
    )
    if footprint.gigabytes > memory:
        yield (
            f"sweep.memory_gb = {memory:g} is less than the "
            f"{footprint.gigabytes:.3g} GiB that {grid.size} runs of (n, d) = "
            f"{(problem.n, problem.d)} would take; raise it, or make the grid smaller"
        )


def _test_rows(problem: Problem) -> int:
    return 0 if problem.X_test is None else problem.X_test.shape[-2]

"""The results of a sweep that has been trained."""

from __future__ import annotations

import xarray as xr

from dln_momentum.engine.problems import Report
from dln_momentum.outputs.results import grid_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.problem import Problem
from dln_momentum.sweeps.grid import Grid
from dln_momentum.training.module import HeavyBallModule


def dataset(module: HeavyBallModule, grid: Grid, report: Report | None = None) -> xr.Dataset:
    """`grid_dataset` of a sweep, with what was not swept as scalar coordinates.

    Args:
        module: the trained runs, the valid points of the grid in their order.
        grid: the grid.
        report: called with the number of runs that have been summarised since the last call.
    """
    problems = module.data.problems
    return grid_dataset(
        module.measure(end_of_runs, report),
        {name: grid.axes[name] for name in grid.dims},
        grid.gamma,
        grid.beta,
        [problems] if isinstance(problems, Problem) else problems.each,
        fixed={name: axis[0] for name, axis in grid.axes.items() if name not in grid.dims},
        valid=grid.valid,
        history=module.history,
    )

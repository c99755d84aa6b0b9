"""The results of a sweep that has been trained."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from dln_momentum.outputs.results import grid_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.problem import Problem
from dln_momentum.sweeps.grid import Grid
from dln_momentum.training.cohorts import Cohort
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.steppers import Report


def dataset(module: HeavyBallModule, grid: Grid, report: Report | None = None) -> xr.Dataset:
    """`grid_dataset` of a sweep, with what was not swept as scalar coordinates.

    Args:
        module: the trained runs, the valid points of the grid in their order.
        grid: the grid.
        report: called with the number of runs that have been summarised since the last call.
    """
    fixed = {name: axis[0] for name, axis in grid.axes.items() if name not in grid.dims}
    # the first run on each data set that has a run
    first = np.unique(grid.places("data_seed")[grid.valid], return_index=True)[1]
    return grid_dataset(
        module.measure(end_of_runs, report),
        {name: grid.axes[name] for name in grid.dims},
        grid.gamma,
        grid.beta,
        [_problem_of(module.data.cohorts, int(run)) for run in first],
        fixed=fixed,
        valid=grid.valid,
        history=module.history,
    )


def _problem_of(cohorts: list[Cohort], run: int) -> Problem:
    """The data of one run."""
    for cohort in cohorts:
        runs = torch.tensor([run]) if cohort.runs is None else cohort.runs
        place = torch.nonzero(runs == run)
        if len(place):
            problem, index = cohort.problem, int(place[0])
            if not problem.runs:
                return problem
            star = None if problem.theta_star is None else problem.theta_star[index]
            return Problem(problem.X[index], problem.y[index], theta_star=star)
    raise ValueError(f"run {run} is in no problem group")

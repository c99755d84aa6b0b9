"""The result of a sweep: every number of every run, labelled by the axes of the grid."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.engine.problems import Report
from dln_momentum.outputs.results import LONG_NAMES as RECORDED_NAMES
from dln_momentum.outputs.summary import summarise
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of, lam_ks_of, lam_of
from dln_momentum.sweeps.axes import MOMENTUM
from dln_momentum.sweeps.grid import Grid
from dln_momentum.training.module import HeavyBallModule

LONG_NAMES = RECORDED_NAMES | {
    "gamma": "step size",
    "beta": "momentum",
    "lam": "lambda = gamma/(1-beta)^2",
    "lambda": "gamma/(1-beta)^2",
    "eps": "epsilon = gamma/(1-beta)",
    "epsilon": "gamma/(1-beta)",
    "lam_ks": "lambda_KS = lambda (1+beta)/2",
    "lambda_ks": "lambda (1+beta)/2",
    "alpha": "initialisation scale",
    "seed": "seed of the initialisation, the mini-batches and the label noise",
    "data_seed": "seed of the data",
    "step": "steps taken",
    "steps": "steps taken",
    "steps_to_tol": "steps to a training loss at or below trainer.tol",
    "rank": "rank of X",
    "small_lambda_threshold": "min_i Delta_{0,i} / (2 F(w_0)): below it no Delta ever vanishes",
    "initial_balancedness_l1": "||Delta_0||_1",
    "log_free_error": "error of u^2 - v^2 against its log-free sum, relative to max_i Delta_0",
    "theta_inf": "theta at the end",
    "Delta_inf": "Delta at the end",
    "theta_star": "theta*, which made the labels",
    "status": "how the run ended",
    "status_label": "how the run ended",
}
PATH = "_path"
"""What the names of recorded values end in, to tell them from the values at the end."""


def dataset(module: HeavyBallModule, grid: Grid, report: Report | None = None) -> xr.Dataset:
    """All results of a sweep that has ended.

    Args:
        module: the trained runs, the valid points of the grid in their order.
        grid: the grid.
        report: told how many runs more have been summarised, which takes the time here.

    Returns:
        The swept axes as dimensions, what was not swept as scalar coordinates; every key of
        `summarise`, ``rank``, ``status`` and ``status_label`` on the grid; theta_inf, Delta_inf,
        s_plus and s_minus with a dimension ``coordinate`` more; theta_star of each data set, where
        it is known; and the recorded values as ``NAME_path``, with a dimension ``step`` before
        them. Floats are nan at invalid points.
    """
    final = module.measure(summarise, report) | module.measure(_others)
    variables = {
        name: _variable(grid, _float(value))
        for name, value in final.items()
        if name not in MOMENTUM  # gamma and beta are coordinates
    }
    variables["steps_to_tol"] = variables["steps_to_tol"].where(variables["steps_to_tol"] >= 0)
    path = module.history
    variables |= {
        name + PATH: _variable(grid, _float(path.column(name)), lead=("step",))
        for name in path.values
        if sorted(path.values[name]) == path.steps
    }
    found = xr.Dataset(
        variables | _status(grid, module) | _theta_star(grid, module),
        coords={"step": path.steps, **_axes(grid), **_momentum(grid)},
    )
    for name, values in found.variables.items():
        if long_name := LONG_NAMES.get(str(name).removesuffix(PATH)):
            values.attrs["long_name"] = long_name
    return found


def _others(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    s_plus, s_minus = snapshot.path_sums
    return {
        "rank": problem.row_space.ranks.expand_as(snapshot.loss),
        "theta_inf": snapshot.theta,
        "Delta_inf": snapshot.balancedness,
        "s_plus": s_plus,
        "s_minus": s_minus,
    }


def _theta_star(grid: Grid, module: HeavyBallModule) -> dict[str, xr.Variable]:
    """theta* over the data sets, from a run on each; nothing where it is not known."""

    def of_runs(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        star = problem.theta_star
        return {} if star is None else {"theta_star": star.expand_as(snapshot.theta)}

    found = module.measure(of_runs).get("theta_star")
    if found is None:
        return {}
    runs = np.unique(grid.places("data_seed")[grid.valid], return_index=True)[1]
    stars = _float(found[torch.from_numpy(runs)])
    over_data = "data_seed" in grid.dims
    dims = ("data_seed", "coordinate") if over_data else ("coordinate",)
    return {"theta_star": xr.Variable(dims, stars if over_data else stars[0])}


def _float(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _variable(grid: Grid, values: np.ndarray, lead: tuple[str, ...] = ()) -> xr.Variable:
    """Values [*lead, runs, ...] on the grid, nan at invalid points."""
    before, after = values.shape[: len(lead)], values.shape[len(lead) + 1 :]
    full = np.full((*before, grid.size, *after), np.nan)
    full[(slice(None),) * len(lead) + (grid.valid,)] = values
    dims = (*lead, *grid.dims, *("coordinate",) * len(after))
    return xr.Variable(dims, full.reshape((*before, *grid.shape, *after)))


def _status(grid: Grid, module: HeavyBallModule) -> dict[str, xr.Variable]:
    codes = np.full(grid.size, int(Status.INVALID), dtype=np.int8)
    codes[grid.valid] = module.stepper.status.cpu().numpy()
    labels = np.array([Status(code).label for code in codes], dtype=object)
    flags = {
        "flag_values": np.array([int(status) for status in Status], dtype=np.int8),
        "flag_meanings": " ".join(status.label for status in Status),
    }
    return {
        "status": xr.Variable(grid.dims, codes.reshape(grid.shape), flags),
        "status_label": xr.Variable(grid.dims, labels.reshape(grid.shape)),
    }


def _axes(grid: Grid) -> dict[str, xr.Variable]:
    """Dimension coordinates, and a scalar for each axis of one value."""
    return {
        name: xr.Variable((name,), values) if name in grid.dims else xr.Variable((), values[0])
        for name, values in grid.axes.items()
    }


def _momentum(grid: Grid) -> dict[str, xr.Variable]:
    """gamma, beta, lam, eps and lam_ks over the axes that they depend on."""
    dims = tuple(name for name in grid.dims if name in MOMENTUM)
    others = tuple(slice(None) if name in MOMENTUM else 0 for name in grid.dims)
    gamma, beta = (rate.reshape(grid.shape)[others] for rate in (grid.gamma, grid.beta))
    with np.errstate(divide="ignore", invalid="ignore"):  # at an invalid point beta may be 1
        values = {
            "gamma": gamma,
            "beta": beta,
            "lam": lam_of(gamma, beta),
            "eps": eps_of(gamma, beta),
            "lam_ks": lam_ks_of(gamma, beta),
        }
    return {
        name: xr.Variable(dims, value) for name, value in values.items() if name not in grid.axes
    }

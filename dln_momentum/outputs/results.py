"""``results.nc``: every number of every run of a grid, labelled by the axes of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from dln_momentum.engine import Status
from dln_momentum.outputs.history import History
from dln_momentum.outputs.provenance import data_hash
from dln_momentum.outputs.quantities import PATH, RATES, describe
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of, lam_ks_of, lam_of


def grid_dataset(
    values: Mapping[str, Tensor],
    axes: Mapping[str, np.ndarray],
    gamma: np.ndarray,
    beta: np.ndarray,
    problems: Sequence[Problem],
    *,
    fixed: Mapping[str, Any] | None = None,
    valid: np.ndarray | None = None,
    history: History | None = None,
) -> xr.Dataset:
    """All results of R runs at the valid points of a grid of P points.

    Args:
        values: `end_of_runs`, [R] or [R, d] each, in the order of the points.
        axes: values of the swept axes, which are the dimensions; the last one varies fastest.
        gamma, beta: at all points, [P].
        problems: the data, one for each data seed, or one.
        fixed: parameters that are not swept, as scalar coordinates.
        valid: the points that have a run, boolean [P]; all of them by default.
        history: the recorded values, if any.

    Returns:
        The values over the grid, vectors with the further dimension ``coordinate``; theta_star and
        data_hash of each data set; recorded values as ``NAME_path``, over ``step`` first; status
        as text. Floats are nan at points without a run, where status is ``invalid``.
    """
    dims, shape = tuple(axes), tuple(len(axis) for axis in axes.values())
    valid = np.ones(len(gamma), dtype=bool) if valid is None else valid

    def on_grid(runs: Tensor, lead: tuple[str, ...] = ()) -> xr.Variable:
        """Values [*lead, R, ...] as [*lead, *shape, ...], nan at points without a run."""
        array = runs.double().cpu().numpy()
        before, after = array.shape[: len(lead)], array.shape[len(lead) + 1 :]
        full = np.full((*before, len(valid), *after), np.nan)
        full[(slice(None),) * len(lead) + (valid,)] = array
        over = (*lead, *dims, *("coordinate",) * len(after))
        return xr.Variable(over, full.reshape((*before, *shape, *after)))

    labels = np.full(len(valid), Status.INVALID.label, dtype=object)
    labels[valid] = [Status(code).label for code in values["status"].tolist()]
    found = {name: on_grid(value) for name, value in values.items()}
    found |= {"status": xr.Variable(dims, labels.reshape(shape)), **_of_data(problems, dims)}
    coords: dict[str, Any] = {**_rates(gamma, beta, axes), **(fixed or {}), **axes}
    if history is not None:
        coords["step"] = history.steps
        found |= {
            name + PATH: on_grid(history.column(name), ("step",))
            for name, column in history.values.items()
            if sorted(column) == history.steps
        }
    coords["coordinate"] = np.arange(problems[0].d)
    # rates are coordinates, over the axes they depend on alone
    return describe(xr.Dataset({k: v for k, v in found.items() if k not in coords}, coords))


def _rates(
    gamma: np.ndarray, beta: np.ndarray, axes: Mapping[str, np.ndarray]
) -> dict[str, xr.Variable]:
    """gamma, beta, lam, eps and lam_ks over the axes that they depend on."""
    dims = tuple(name for name in axes if name in RATES)
    others = tuple(slice(None) if name in dims else 0 for name in axes)
    shape = tuple(len(axis) for axis in axes.values())
    gamma, beta = (rate.reshape(shape)[others] for rate in (gamma, beta))
    with np.errstate(divide="ignore", invalid="ignore"):  # at an invalid point beta may be 1
        values = {
            "gamma": gamma,
            "beta": beta,
            "lam": lam_of(gamma, beta),
            "eps": eps_of(gamma, beta),
            "lam_ks": lam_ks_of(gamma, beta),
        }
    return {name: xr.Variable(dims, value) for name, value in values.items() if name not in axes}


def _of_data(problems: Sequence[Problem], axes: Sequence[str]) -> dict[str, xr.Variable]:
    """theta_star, where it is known, and data_hash, over the data seeds if they are an axis."""
    dims = ("data_seed",) if "data_seed" in axes else ()

    def over_data(each: list[Any], dtype: Any, *inner: str) -> xr.Variable:
        return xr.Variable((*dims, *inner), np.array(each if dims else each[0], dtype=dtype))

    found = {"data_hash": over_data([data_hash(p) for p in problems], object)}
    stars = [p.theta_star for p in problems if p.theta_star is not None]
    if len(stars) == len(problems):
        arrays = [star.double().cpu().numpy() for star in stars]
        found["theta_star"] = over_data(arrays, float, "coordinate")
    return found

"""``results.nc``: every number of every run of a grid, labelled by the axes of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from dln_momentum.engine import Status
from dln_momentum.outputs.grid import Grid
from dln_momentum.outputs.history import History
from dln_momentum.outputs.provenance import data_hash
from dln_momentum.outputs.quantities import NOT_RUN, PATH, describe
from dln_momentum.problem import Problem
from dln_momentum.rates import LAYERS, RATES, named_rates


def piece_dataset(
    values: Mapping[str, Tensor],
    points: np.ndarray,
    history: History | None = None,
    recorded: Sequence[int] = (),
) -> xr.Dataset:
    """The results of R runs that were trained together, over the dimension ``run``.

    Args:
        values: `end_of_runs`, [R] or [R, d] each.
        points: the point of the grid that each run is, [R].
        history: the recorded values, if any; each becomes ``NAME_path``, over ``step`` first.
        recorded: the steps of the plan. A run that has ended keeps its last values, so that the
            steps do not depend on which runs are trained together.
    """
    found = {name: _over(("run",), value) for name, value in values.items()}
    found["point"] = xr.Variable(("run",), points)
    coords = {}
    if history is not None:
        steps = history.steps
        last = np.searchsorted(steps, sorted(recorded), side="right") - 1
        coords["step"] = np.array(sorted(recorded))
        for name, column in history.values.items():
            if sorted(column) == steps:
                found[name + PATH] = _over(("step", "run"), history.column(name)[last])
    return xr.Dataset(found, coords)


def _over(dims: tuple[str, ...], value: Tensor) -> xr.Variable:
    array = value.double().cpu().numpy()
    return xr.Variable((*dims, *("coordinate",) * (array.ndim - len(dims))), array)


def grid_dataset(
    pieces: Sequence[xr.Dataset],
    grid: Grid,
    gamma: np.ndarray,
    beta: np.ndarray,
    data: tuple[Sequence[Problem | None], np.ndarray, Sequence[str]],
    *,
    fixed: Mapping[str, Any] | None = None,
    valid: np.ndarray | None = None,
) -> xr.Dataset:
    """All results of a grid of P points from the pieces that its runs were trained in.

    Args:
        pieces: `piece_dataset` of each.
        grid: the axes, which are the dimensions; the last one varies fastest.
        gamma, beta: at all points, [P].
        data: the problems, which of them each point has, [P], and the axes that choose it; a
            problem is None where its setting is not allowed.
        fixed: parameters that are not swept, as scalar coordinates.
        valid: the points that are to have a run, boolean [P]; all of them by default.

    Returns:
        The values over the grid, vectors with the further dimension ``coordinate``, padded with nan
        where d is smaller; n, d, theta_star and data_hash of each data set; recorded values as
        ``NAME_path``, over ``step`` first; status as text. Floats are nan at points without a run,
        where status is ``invalid``, or ``not run`` if the run belongs to another shard.
    """
    valid = np.ones(grid.size, dtype=bool) if valid is None else valid
    d = max(problem.d for problem in data[0] if problem is not None)
    steps = np.unique(np.concatenate([[], *(p["step"] for p in pieces if "step" in p)])).astype(int)
    sizes = {"step": len(steps), "coordinate": d}
    found: dict[str, xr.Variable] = {}
    for name in dict.fromkeys(str(name) for piece in pieces for name in piece.data_vars):
        if name in ("point", "status"):
            continue
        (dims,) = {piece[name].dims for piece in pieces if name in piece}
        lead, after = dims[: dims.index("run")], dims[dims.index("run") + 1 :]
        full = np.full([*(sizes[str(k)] for k in lead), grid.size, *(sizes[str(k)] for k in after)],
                       np.nan)  # fmt: skip
        for piece in pieces:
            if name not in piece:
                continue
            place: list[Any] = [np.searchsorted(steps, piece["step"]) for _ in lead]
            place += [piece["point"].to_numpy(), *(np.arange(piece.sizes[str(k)]) for k in after)]
            full[np.ix_(*place)] = piece[name].to_numpy()
        shape = full.shape[: len(lead)] + grid.shape + full.shape[len(lead) + 1 :]
        found[name] = xr.Variable((*lead, *grid.dims, *after), full.reshape(shape))
    found |= {"status": _status(pieces, grid, valid), **_of_data(grid, d, *data)}
    coords: dict[str, Any] = {**_rates(grid, gamma, beta), **(fixed or {}), **grid.coordinates}
    if len(steps):
        coords["step"] = steps
    coords["coordinate"] = np.arange(d)
    # rates are coordinates, over the axes they depend on alone
    return describe(xr.Dataset({k: v for k, v in found.items() if k not in coords}, coords))


def _status(pieces: Sequence[xr.Dataset], grid: Grid, valid: np.ndarray) -> xr.Variable:
    labels = np.where(valid, NOT_RUN, Status.INVALID.label).astype(object)
    for piece in pieces:
        codes = piece["status"].to_numpy().astype(int).tolist()
        labels[piece["point"].to_numpy()] = [Status(code).label for code in codes]
    return xr.Variable(grid.dims, labels.reshape(grid.shape))


def _rates(grid: Grid, gamma: np.ndarray, beta: np.ndarray) -> dict[str, xr.Variable]:
    """gamma, beta, lam, eps and lam_ks over the axes that they depend on."""
    dims, points = grid.reduced((*RATES, *LAYERS))
    gamma, beta = gamma[points], beta[points]
    with np.errstate(divide="ignore", invalid="ignore"):  # at an invalid point beta may be 1
        values = named_rates(gamma, beta)
    return {name: xr.Variable(dims, value) for name, value in values.items()}


def _of_data(
    grid: Grid, d: int, problems: Sequence[Problem | None], index: np.ndarray, names: Sequence[str]
) -> dict[str, xr.Variable]:
    """n, d, data_hash and, where it is known, theta_star, over the axes that choose the data."""
    dims, points = grid.reduced(names)
    index = index[points]
    hashes = np.array([(p and data_hash(p)) or "" for p in problems], dtype=object)
    sizes = np.array([(p.n, p.d) if p else (0, 0) for p in problems])
    found = {"data_hash": xr.Variable(dims, np.asarray(hashes[index], dtype=object))}
    found |= {key: xr.Variable(dims, sizes[index][..., i]) for i, key in enumerate(("n", "d"))}
    stars = np.full((len(problems), d), np.nan)
    for row, problem in zip(stars, problems, strict=True):
        if problem is not None and problem.theta_star is not None:
            row[: problem.d] = problem.theta_star.double().cpu().numpy()
    if np.isfinite(stars).any():
        found["theta_star"] = xr.Variable((*dims, "coordinate"), stars[index])
    return found

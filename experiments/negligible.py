"""Where the perturbed initialisation is negligible, over alpha and lambda."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import SubFigure
from torch import Tensor

from dln_momentum import Problem, Snapshot, Status
from dln_momentum.problem import stack
from dln_momentum.theory.discrete_bias import log_init
from dln_momentum.theory.minimizers import bregman_minimizer

LONG_NAME = (
    "||theta_inf - argmin psi_{Delta_inf}|| / ||theta_inf||: what leaving out theta~_0 costs; nan "
    "where not converged"
)
FLOOR, CEILING = 1e-8, 1.0
"""Ends of the colours. Below the first is what is not known at the loss where a run has ended."""


def cost_over_scales(
    problems: Sequence[Problem],
    alphas: Sequence[float],
    lams: Sequence[float],
    run: Callable[[list[Problem], Tensor, Tensor], Snapshot],
) -> xr.DataArray:
    """What leaving out theta~_0 moves the minimiser by, for every alpha, lambda and data set.

    Args:
        problems: the data sets.
        alphas, lams: the grid.
        run: takes R problems, lambda [R] and alpha [R] to runs that have ended.
    """
    shape = (len(alphas), len(lams), len(problems))
    alpha, lam, _ = (
        grid.flatten()
        for grid in torch.meshgrid(
            *(torch.tensor(list(v), dtype=torch.float64) for v in (alphas, lams)),
            torch.zeros(len(problems), dtype=torch.float64),
            indexing="ij",
        )
    )
    repeated = list(problems) * (len(alphas) * len(lams))
    end = run(repeated, lam, alpha)
    return xr.DataArray(
        _cost(end, stack(repeated)).reshape(shape).numpy(),
        dims=("alpha", "lam", "data_seed"),
        coords={"alpha": list(alphas), "lam": list(lams), "data_seed": range(len(problems))},
        attrs={"long_name": LONG_NAME},
    )


def _cost(end: Snapshot, problem: Problem) -> Tensor:
    """The relative distance of the minimisers with and without theta~_0, [R]."""
    target = problem.row_space.target(problem.y)
    converged = (end.status == int(Status.CONVERGED))[:, None]
    c = log_init(*end.w_start.unbind(), *end.path_sums.unbind())
    delta, c = torch.where(converged, end.limit_balancedness, 1.0), torch.where(converged, c, 0.0)
    limit, without = (
        bregman_minimizer(problem.row_space, target, delta, start)
        for start in (c, torch.zeros_like(c))
    )
    norm = torch.linalg.vector_norm
    cost = norm(limit.theta - without.theta, dim=-1) / norm(limit.theta, dim=-1)
    known = converged[:, 0] & limit.converged & without.converged
    return torch.where(known, cost, torch.nan)


def upper_quartile(cost: xr.DataArray) -> xr.DataArray:
    """Over data sets; nan where fewer than half of the runs converged."""
    known = cost.notnull().mean("data_seed") >= 0.5
    return cost.where(known, 0.0).quantile(0.75, "data_seed").drop_vars("quantile").where(known)


def reach(cost: xr.DataArray, bound: float) -> xr.DataArray:
    """For each alpha, the largest lambda up to which the cost is below a bound; 0 if at none.

    In the upper quartile over data sets; a cell in which fewer than half of the runs converged
    counts as above the bound. The other dimensions are kept.
    """
    cheap = upper_quartile(cost) < bound
    return xr.where(cheap.cumprod("lam") > 0, cheap["lam"], 0.0).max("lam")


def reach_in_words(reached: xr.DataArray) -> str:
    """The largest lambda for each alpha, as text; alphas of equal lambda together.

    >>> reach_in_words(xr.DataArray([0.1, 10.0, 10.0], coords={"alpha": [0.1, 1e-4, 1e-6]}))
    'lambda = 0.1 at alpha = 0.1, 10 at 0.0001 and 1e-06'
    """
    alphas: dict[float, list[str]] = {}
    for alpha, lam in zip(reached["alpha"].values, reached.values, strict=True):
        alphas.setdefault(float(lam), []).append(f"{alpha:g}")
    parts = [f"{lam:g} at {' and '.join(names)}" for lam, names in alphas.items()]
    return "lambda = " + ", ".join([parts[0].replace(" at ", " at alpha = ", 1), *parts[1:]])


def draw_map(figure: SubFigure, ax: Axes, cost: xr.DataArray, bound: float, *, bar: bool) -> None:
    """The upper quartile of the cost in the (alpha, lambda) plane, with the bound as a line."""
    values = upper_quartile(cost).transpose("alpha", "lam")
    mesh = ax.pcolormesh(
        np.arange(values.sizes["lam"] + 1) - 0.5,
        np.arange(values.sizes["alpha"] + 1) - 0.5,
        values.clip(FLOOR, CEILING),
        norm=LogNorm(FLOOR, CEILING),
        cmap="cividis",
        rasterized=True,
    )
    ax.set_facecolor("0.8")
    _outline(ax, values.to_numpy() < bound)
    ax.set_xticks(range(values.sizes["lam"]), [f"{lam:g}" for lam in values["lam"].values])
    ax.set_yticks(range(values.sizes["alpha"]), [f"{a:g}" for a in values["alpha"].values])
    ax.tick_params(axis="x", rotation=60)
    ax.minorticks_off()
    ax.grid(False)
    ax.set_xlabel(r"$\lambda$")
    if bar:
        figure.colorbar(mesh, ax=ax, label=r"cost of leaving out $\tilde\theta_0$", pad=0.02)


def _outline(ax: Axes, cheap: np.ndarray) -> None:
    """Edges between cells below the bound and others, in white on black."""
    segments = []
    for i, j in np.ndindex(cheap.shape):
        if j + 1 < cheap.shape[1] and cheap[i, j] != cheap[i, j + 1]:
            segments.append(([j + 0.5, j + 0.5], [i - 0.5, i + 0.5]))
        if i + 1 < cheap.shape[0] and cheap[i, j] != cheap[i + 1, j]:
            segments.append(([j - 0.5, j + 0.5], [i + 0.5, i + 0.5]))
    for width, colour in ((3.0, "k"), (1.4, "w")):
        for x, y in segments:
            ax.plot(x, y, color=colour, lw=width, solid_capstyle="butt")

"""The figure of `experiments.mgf_implicit_bias`: a column for each setting."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import band
from experiments.flows import setting_title
from experiments.negligible import draw_map

DISTANCES = {
    "to_minimizer": r"minimiser with $\tilde\theta_0$",
    "to_minimizer_by_definition": r"the same, $I_\pm$ by definition",
    "to_unperturbed": r"minimiser without $\tilde\theta_0$",
    "to_gradient_flow": "gradient flow",
    "to_l1": r"least $\ell_1$ norm",
    "restart_to_unperturbed": r"restarted flow to its minimiser",
}
"""Distances, relative to the norm of the flow's limit, that the figure shows."""

DASHES = ("o-", "x:", "s-", "^-", "v-", "+--")


def draw(config: DictConfig, results: xr.Dataset, cost: xr.DataArray) -> Figure:
    """Distances over lambda, what leaving out theta~_0 costs, and that over alpha and lambda."""
    count, norm = results.sizes["setting"], LogNorm(config.lams[0], config.lams[-1])
    with style():
        whole = Figure(figsize=(max(2.3 * count, 5.5) + 0.9, 8.0), layout="constrained")
        grid = whole.add_gridspec(2, 1, height_ratios=[5.6, 2.4])
        figure, lower = (whole.add_subfigure(part) for part in grid)
        top, bottom = figure.subplots(2, count, sharey="row", squeeze=False)
        for column, ax, below in zip(range(count), top, bottom, strict=True):
            part = results.isel(setting=column)
            _lines(ax, part)
            _scatter(below, part, norm)
            ax.set_title(setting_title(config.settings[column]), fontsize=7.5)
        top[0].set_ylabel(r"distance relative to $\|\theta^{MGF}\|$")
        bottom[0].set_ylabel(r"distance to minimiser without $\tilde\theta_0$")
        figure.colorbar(ScalarMappable(norm), ax=bottom, label=r"$\lambda$", pad=0.01)
        handles, labels = top[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        sizes = cost["size"].to_numpy()
        maps = lower.subplots(1, len(sizes), squeeze=False)[0]
        for ax, size in zip(maps, sizes, strict=True):
            draw_map(lower, ax, cost.sel(size=size), config.negligible, bar=bool(size == sizes[-1]))
            ax.set_title(f"(n, d, s) = {size}", fontsize=9)
            ax.set_ylabel(r"initialisation scale $\alpha$")
    return whole


def _lines(ax: Axes, part: xr.Dataset) -> None:
    for (name, label), dashes in zip(DISTANCES.items(), DASHES, strict=True):
        values = part[name].dropna("lam", how="all")
        low, middle, high = band(values.to_numpy(), axis=1)
        ax.plot(values["lam"], middle, dashes, ms=3, label=label)
        ax.fill_between(values["lam"], low, high, alpha=0.2, lw=0)
    ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$")


def _scatter(ax: Axes, part: xr.Dataset, norm: LogNorm) -> None:
    """Every run: what leaving out theta~_0 costs against the size of theta~_0."""
    size, crossed = part["log10_perturbed_init"].to_numpy(), part["crossed"].to_numpy() > 0
    colour = np.broadcast_to(part["lam"].to_numpy()[:, None], size.shape)
    cost = part["to_unperturbed"].to_numpy()
    # above the grid
    look = {"norm": norm, "s": 10, "lw": 0.8, "zorder": 2}
    ax.scatter(size[~crossed], cost[~crossed], c=colour[~crossed], marker="o", **look)
    ax.scatter(size[crossed], cost[crossed], c=colour[crossed], marker="x", **look)
    for marker, label in (("o", r"no $w_\pm$ crossed 0"), ("x", "some did")):
        ax.plot([], [], marker, color="k", ms=3.5, label=label)
    ax.set(yscale="log", xlabel=r"$\log_{10}(\|\tilde\theta_0\| / \|\theta^{MGF}\|)$")
    ax.legend(loc="lower right")

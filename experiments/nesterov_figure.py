"""The figure of `experiments.nesterov`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

STYLES = ("-", "--", ":")
NAMES = {
    "path": "distance of the paths",
    "gain": r"difference of $\ln(\Delta_0/\Delta_\infty)$",
    "limit": "distance of the limits",
}


def draw(results: xr.Dataset, orders: dict[str, xr.DataArray], config: DictConfig) -> Figure:
    """Differences over lambda, their orders, fixed lambda, and large lambda."""
    rivals = results["rival"].to_numpy()
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots(2, 3)
        for ax, (key, name) in zip(axes[0], NAMES.items(), strict=True):
            part = results[key].sel(beta=config.betas[-1])
            for rival, ls in zip(rivals, STYLES, strict=True):
                if key == "path" or rival != rivals[2]:
                    _line(ax, part.sel(rival=rival), "small_lam", ls, "k", str(rival))
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$ at fixed $\beta$", ylabel=name)
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].legend(fontsize=6)
        for j, (key, order) in enumerate(orders.items()):
            for rival, ls in zip(rivals, STYLES, strict=True):
                if key == "path" or rival != rivals[2]:
                    name = f"{key}, {rival}" if ls != "--" or key != "path" else None
                    _line(axes[1, 0], order.sel(rival=rival), "beta", ls, f"C{j}", name)
        axes[1, 0].set(xlabel=r"$\beta$", ylabel=r"order in $\gamma$")
        axes[1, 0].legend(fontsize=4.5)
        for j, lam in enumerate(results["fixed_lam"].to_numpy()):
            for rival, ls in zip(rivals[:2], STYLES, strict=False):
                part = results["fixed_limit"].sel(fixed_lam=lam, rival=rival)
                name = rf"$\lambda$ = {lam:g}" if ls == "-" else None
                _line(axes[1, 1], part, "drag", ls, f"C{j}", name)
        axes[1, 1].set(xscale="log", yscale="log", xlabel=r"$1-\beta$", ylabel=NAMES["limit"])
        axes[1, 1].xaxis.set_minor_formatter(NullFormatter())
        axes[1, 1].legend(fontsize=6)
        for j, method in enumerate(results["algorithm"].to_numpy()):
            part = results.sel(algorithm=method)
            _line(axes[1, 2], part["error"], "large_lam", "-", f"C{j}", f"{method}: error")
            signs = part["signs_changed"].mean("data_seed")
            axes[1, 2].plot(signs["large_lam"], signs, "--", color=f"C{j}", label="sign changes")
        axes[1, 2].set(xscale="log", xlabel=r"$\lambda$", ylabel="error, share with sign changes")
        axes[1, 2].legend(fontsize=5)
    return figure


def _line(ax: Axes, part: xr.DataArray, over: str, ls: str, colour: str, name: str | None) -> None:
    low, middle, high = band(part.transpose("data_seed", over).to_numpy())
    x = np.asarray(part[over])
    ax.plot(x, middle, ls, marker="o", ms=2.5, lw=1.0, color=colour, label=name)
    ax.fill_between(x, low, high, color=colour, alpha=0.1, lw=0)

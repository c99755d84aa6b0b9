"""The figure of `experiments.progressive_sharpening`."""

from __future__ import annotations

import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

EDGE = r"sharpness $\gamma/(2(1+\beta))$"


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """Paths, the rise without momentum, and the ends over f."""
    part = results.sel(alpha=config.shown_alpha)
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots(2, 3)
        for j, beta in enumerate(part["beta"].to_numpy()):
            path = part["path"].sel(beta=beta)
            axes[0, 0].plot(
                part["record_step"], path, color=f"C{j}", lw=1.0, label=rf"$\beta$ = {beta:g}"
            )
        axes[0, 0].axhline(1, color="k", lw=0.8)
        axes[0, 0].set(xscale="log", xlabel="step", ylabel=EDGE, ylim=(0, 3))
        axes[0, 0].legend(fontsize=6)
        rise = results["sharpness_flow"] / results["sharpness_start"]
        low, middle, high = band(rise.transpose("data_seed", "alpha").to_numpy())
        alpha = results["alpha"].to_numpy()
        axes[0, 1].plot(alpha, middle, "o-", ms=3, color="k")
        axes[0, 1].fill_between(alpha, low, high, color="k", alpha=0.13, lw=0)
        axes[0, 1].axhline(1, color="k", lw=0.8)
        axes[0, 1].set(xscale="log", xlabel=r"$\alpha$", ylabel="sharpness, limit over start")
        _over_ratio(axes[0, 2], part["end"], EDGE + ", end")
        axes[0, 2].plot(part["ratio"], part["ratio"], "k:", lw=1)
        axes[0, 2].axhline(1, color="k", lw=0.8)
        _over_ratio(axes[1, 0], part["diverged"], "share diverged", share=True)
        _over_ratio(axes[1, 1], part["neither"], "share neither", share=True)
        above = part["at_the_edge"].sel(ratio=part["ratio"] > 1)
        _over_ratio(axes[1, 2], above, "share of records at the edge")
    return figure


def _over_ratio(ax: Axes, values: xr.DataArray, ylabel: str, *, share: bool = False) -> None:
    """Medians and quartiles over data sets, or the mean of what is 0 or 1."""
    ratio = values["ratio"].to_numpy()
    for j, beta in enumerate(values["beta"].to_numpy()):
        one = values.sel(beta=beta).transpose("data_seed", "ratio").to_numpy()
        if share:
            ax.plot(ratio, one.mean(0), "o-", ms=3, color=f"C{j}", lw=1.0)
            continue
        low, middle, high = band(one)
        ax.plot(ratio, middle, "o-", ms=3, color=f"C{j}", lw=1.0)
        ax.fill_between(ratio, low, high, color=f"C{j}", alpha=0.13, lw=0)
    ax.set(xlabel="f", ylabel=ylabel)

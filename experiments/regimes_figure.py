"""The figure of `experiments.regimes`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import band

PLANE = "scalar network"
LEVELS = (0.01, 0.1, 0.5, 1, 2, 4)
SHOWN = ("C4", "C2", "C3")
PROBLEMS = ("k", "C0", "C1")


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """Paths in the plane above; distance, oscillation, time and steps against lambda below."""
    with style():
        figure = Figure(figsize=(7.2, 7.2), layout="constrained")
        axes = figure.subplots(3, 3)
        for ax, lam, colour in zip(axes[0], config.shown, SHOWN, strict=True):
            _draw_path(ax, results["plane_path"], lam, colour)
        axes[0, 0].set_ylabel("v")
        axes[0, 0].legend(fontsize=7, loc="lower left")
        _draw_losses(axes[1, 0], results, config)
        _over_lambda(
            axes[1, 1], results, "distance", "distance to gradient\nflow's curve, relative"
        )
        axes[1, 1].axhline(config.same_curve, color="0.4", lw=0.8, ls=":")
        _over_lambda(axes[1, 2], results, "rise", "total rise of the loss\nover the initial loss")
        axes[1, 2].set_ylim(bottom=1e-3)
        _over_lambda(axes[2, 0], results, "time", r"time $t = k\varepsilon$ to converge")
        tail = np.array([lam for lam in config.lams if lam >= 1])
        axes[2, 0].plot(tail, 30 * tail, "k:", lw=1)
        axes[2, 0].text(tail[0], 40 * tail[0], r"$\propto \lambda$ ", fontsize=8, ha="right")
        _over_lambda(axes[2, 1], results, "steps", rf"steps, $\gamma$ = {config.gamma:g}")
        handles, labels = axes[2, 1].get_legend_handles_labels()
        axes[2, 2].legend(handles, labels, loc="center", title="medians, quartiles")
        axes[2, 2].axis("off")
    return figure


def _draw_path(ax: Axes, paths: xr.DataArray, lam: float, colour: str) -> None:
    u, v = np.meshgrid(np.linspace(-0.4, 2.2, 200), np.linspace(-0.7, 2.0, 200))
    ax.contour(u, v, (u * v - 1) ** 2 / 2, levels=LEVELS, colors="0.75", linewidths=0.7)
    ax.contour(u, v, u * v - 1, levels=[0], colors="0.3", linewidths=1.0)
    flow = paths.sel(shown_lam=0).values
    ax.plot(*flow, "k--", lw=1.6, label="gradient flow", zorder=3)
    ax.plot(*paths.sel(shown_lam=lam).values, color=colour, lw=1.1, label=r"MGF($\lambda$)")
    ax.plot(*flow[:, 0], "ko", ms=4)
    ax.set(xlabel="u")
    ax.set_title(rf"$\lambda$ = {lam:g}", fontsize=9)
    ax.grid(False)


def _draw_losses(ax: Axes, results: xr.Dataset, config: DictConfig) -> None:
    for lam, colour in zip(config.shown, SHOWN, strict=True):
        one = results.isel(problem=1).sel(lam=lam)
        t = (one["step"] * one["eps"]).to_numpy()
        ax.plot(t, one["example_loss"], color=colour, lw=0.9, label=rf"$\lambda$ = {lam:g}")
    ax.set(xscale="log", yscale="log", xlabel=r"time $t = k\varepsilon$")
    ax.set(ylabel="loss, one data set", xlim=(1, 3e3), ylim=(config.tol / 3, 1))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(fontsize=7)


def _over_lambda(ax: Axes, results: xr.Dataset, key: str, ylabel: str) -> None:
    lam = results["lam"].to_numpy()
    for name, colour in zip(results["problem"].values, PROBLEMS, strict=False):
        low, middle, high = band(results[key].sel(problem=name).to_numpy(), axis=1)
        label = str(name).replace(") ", ")\n")
        ax.plot(lam, middle, "o-", ms=3, color=colour, label=label)
        ax.fill_between(lam, low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$", ylabel=ylabel)
    ax.xaxis.set_major_locator(LogLocator(base=100, subs=(1.0,)))
    ax.xaxis.set_minor_locator(NullLocator())

"""The figure of `experiments.small_lambda`: the guarantee, how loose it is, and the formula."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import band
from experiments.flows import setting_title

MARKERS = "os^vD"


def draw(config: DictConfig, results: xr.Dataset) -> Figure:
    """Threshold against first sign change; drift against its bound; error of the formula."""
    with style():
        figure = Figure(figsize=(7.4, 3.1), layout="constrained")
        crossing, drift, formula = figure.subplots(1, 3)
        for setting, marker, number in zip(config.settings, MARKERS, range(99), strict=False):
            part, look = results.isel(setting=number), {"marker": marker, "ms": 3.5}
            title = setting_title(setting)
            crossing.plot(part["threshold"], part["crossing_at"], ls="", label=title, **look)
            for ax, name in ((drift, "drift_over_bound"), (formula, "exponent_error")):
                low, middle, high = band(part[name].to_numpy(), axis=1)
                ax.plot(part["lam"], middle, **look)
                ax.fill_between(part["lam"], low, high, alpha=0.2, lw=0)
        for ax in (drift, formula):
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$")
            # labels of minor ticks, which a short axis gets, run into each other
            ax.xaxis.set_minor_formatter(NullFormatter())
        _finish_crossing(crossing, results)
        drift.axhline(1, color="k", ls=":")
        drift.set_ylim(top=1.6)
        drift.set_ylabel(r"drift of $u^2 - v^2$ over $2 \lambda F(w_0)$")
        drift.text(results["lam"][0], 0.88, "the bound", va="top", fontsize=8)
        lam = results["lam"].to_numpy()
        guide = float(results["exponent_error"].isel(lam=0).min()) / 2
        formula.plot(lam, guide * lam / lam[0], "k:", label=r"slope 1")
        formula.set_ylabel(r"relative error of $\ln(\Delta_0/\Delta_\infty)$")
        formula.legend(loc="upper left")
        figure.legend(*crossing.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _finish_crossing(ax: Axes, results: xr.Dataset) -> None:
    """Limits around the points, and lines of equal ratio across them."""
    found = results["crossing_at"].where(np.isfinite(results["crossing_at"]))
    left, right = float(results["threshold"].min()) / 2, float(results["threshold"].max()) * 3
    low, high = float(found.min()) / 3, float(found.max()) * 2
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    for power in range(6):
        factor = 10.0**power
        end = min(right, high / factor)
        if end > left and factor * end > low:
            ax.plot([left, end], [factor * left, factor * end], "0.75", lw=0.8, zorder=0)
            x = end / 1.7
            if x > 2 * left:
                ax.text(
                    x, factor * x, rf"$\times 10^{power}$", fontsize=7, ha="center", va="center"
                )
    ax.set(
        xlabel=r"guaranteed threshold on $\lambda$", ylabel=r"first $\lambda$ with a sign change"
    )

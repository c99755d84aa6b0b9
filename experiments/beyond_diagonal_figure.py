"""The figure of `experiments.beyond_diagonal`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from dln_momentum.outputs.plotting import style
from experiments.common import band

LOOKS = {"lambda": ("o", "-"), "effective rate": ("s", "--")}
LABELS = {"lambda": r"equal $\lambda$", "effective rate": r"equal $\gamma/(1-\beta)$"}


def draw(results: xr.Dataset) -> Figure:
    """An output over time, then distances and times to tolerance over lambda, by network."""
    with style():
        figure = Figure(figsize=(7.2, 7), layout="constrained")
        axes = figure.subplots(3, 3)
        for i in range(results.sizes["network"]):
            one = results.isel(network=i)
            _draw_example(axes[0, i], one)
            row, name = axes[i + 1], str(one["network"].values)
            _over_lambda(row[0], one, "distance", "distance at equal t,\nrelative rms")
            _over_lambda(row[1], one, "curve_distance", "distance of curves,\nrelative")
            _over_lambda(row[2], one, "time_ratio", "t to tolerance over\nthe reference's")
            row[1].set_title(name, fontsize=9)
        axes[0, 0].legend(fontsize=7)
        handles, labels = axes[1, 0].get_legend_handles_labels()
        axes[0, 2].legend(handles, labels, loc="center", title="medians, quartiles")
        axes[0, 2].axis("off")
    return figure


def _draw_example(ax: Axes, one: xr.Dataset) -> None:
    looks = {
        "reference": {"color": "0.7", "lw": 3},
        "lambda": {"color": "C0"},
        "effective rate": {"color": "C1", "ls": "--"},
    }
    for run, look in looks.items():
        ax.plot(one["record"], one["example"].sel(run=run), label=LABELS.get(run, run), **look)
    lam, rho = float(one["example_lam"]), float(one["example_rho"])
    ax.set_title(rf"{one['network'].values}, $\lambda$ = {lam:g}, $\rho$ = {rho:g}", fontsize=8)
    ax.set(xlabel=r"time $t = k\varepsilon$", ylabel="output on a test input")


def _over_lambda(ax: Axes, one: xr.Dataset, key: str, ylabel: str) -> None:
    lam = one["lam"].to_numpy()
    for i, rho in enumerate(one["rho"].values[::2]):
        for equal, (mark, line) in LOOKS.items():
            values = one[key].sel(equal=equal, rho=rho).to_numpy()
            ran = np.isfinite(values).mean(-1) > 0.75
            if not ran.any():
                continue
            low, middle, high = band(
                np.where(np.isfinite(values[ran]), values[ran], np.nan), axis=1
            )
            label = rf"$\rho$ = {rho:g}, {LABELS[equal]}"
            ax.plot(lam[ran], middle, mark + line, ms=3, color=f"C{i}", label=label)
            ax.fill_between(lam[ran], low, high, color=f"C{i}", alpha=0.15, lw=0)
    ax.set(xscale="log", xlabel=r"$\lambda$ of the reference", ylabel=ylabel)
    ax.set_yscale("log")
    _plain_ticks(ax.xaxis, [float(value) for value in lam[::2]])
    if key == "time_ratio":
        _plain_ticks(ax.yaxis, [0.25, 0.5, 1, 2, 4])


def _plain_ticks(axis: Axis, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())

"""The figure of `experiments.acceleration_rule`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from dln_momentum.outputs.plotting import style
from experiments.common import band

EXAMPLE = 2
"""The case whose path is drawn."""
FAR = 10.0
"""Where a path that left the slowest one by more than this, or diverged, is drawn."""


DISTANCE = "relative distance to the\nslowest path (10: diverged)"


def draw(results: xr.Dataset) -> Figure:
    """Paths at several rho, distances, times, beta^rho, and where stability ends."""
    with style():
        figure = Figure(figsize=(7.2, 7.4), layout="constrained")
        paths, times, distances, stability, betas, key = figure.subplots(3, 2).flat
        _draw_paths(paths, results)
        _draw_times(times, results)
        _draw_distances(distances, results)
        _draw_stability(stability, results)
        _draw_betas(betas, results)
        handles, labels = distances.get_legend_handles_labels()
        key.legend(handles, labels, loc="center", title="(n, d, s, α), λ; medians and quartiles")
        key.axis("off")
    return figure


def _cases(results: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    for i, case in enumerate(results["case"].values):
        yield f"C{i}", str(case).replace("lambda", r"$\lambda$"), results.isel(case=i)


def _draw_paths(ax: Axes, results: xr.Dataset) -> None:
    one = results.isel(case=min(EXAMPLE, results.sizes["case"] - 1))
    end = float(one["example_time"].isel(rho=0, record=-1))
    rhos = one["rho"].values
    shown = [rho for rho in (rhos[0], 1.0, 4.0, rhos[-1]) if rho in rhos]
    looks = (
        {"color": "0.7", "lw": 3},
        {"color": "C0"},
        {"color": "C1", "ls": "--"},
        {"color": "k", "ls": ":", "lw": 1},
    )
    for rho, look in zip(shown, looks, strict=False):
        path = one.sel(rho=rho)
        kept = path["example_time"] <= end
        marks = {"marker": "o", "ms": 3} if rho > 1 else {}
        t, theta = path["example_time"][kept], path["example_theta"][kept]
        ax.plot(t, theta, **look, **marks, label=rf"$\rho$ = {rho:g}")
    reference = one["example_theta"].isel(rho=0)
    low, high = float(reference.min()), float(reference.max())
    ax.set(xlabel=r"time $t = k\varepsilon$", ylabel=r"largest coordinate of $\theta$")
    ax.set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    ax.set_title(rf"the data set that leaves first, $\lambda$ = {float(one['lam']):g}", fontsize=8)
    ax.legend(fontsize=7)


def _draw_times(ax: Axes, results: xr.Dataset) -> None:
    """Steps x eps, which the rule keeps: steps alone would all lie on 1/rho."""
    rho = results["rho"].to_numpy()
    for i, (colour, _, one) in enumerate(_cases(results)):
        ratio = one["time_ratio"].where(one["steps_to_tol"].notnull().mean("data_seed") > 0.75)
        # side by side: most of them lie on 1
        _band(ax, rho * 1.03 ** (i - 2), ratio.to_numpy(), colour, "")
    ax.axhline(1, color="k", lw=1, ls=":", zorder=0)
    ax.set(ylabel=r"time $k\varepsilon$ to tolerance" + "\nover the slowest run's")
    _speed_axis(ax, rho)


def _draw_distances(ax: Axes, results: xr.Dataset) -> None:
    for colour, name, one in _cases(results):
        distance = np.minimum(one["path_distance"].to_numpy(), FAR)
        _band(ax, one["rho"].to_numpy()[1:], distance[1:], colour, name)
    ax.set(yscale="log", ylabel=DISTANCE)
    _speed_axis(ax, results["rho"].to_numpy())


def _draw_stability(ax: Axes, results: xr.Dataset) -> None:
    for colour, _, one in _cases(results):
        x = (one["eps"] / one["largest_stable_eps"]).transpose("rho", "data_seed")
        distance = np.minimum(one["path_distance"].to_numpy(), FAR)
        ax.plot(x.to_numpy()[1:].ravel(), distance[1:].ravel(), ".", ms=3, color=colour)
    ax.axvline(1, color="k", lw=0.8, ls=":")
    ax.text(1.05, 2e-4, "linearised\nlimit", fontsize=7)
    ax.set(xscale="log", yscale="log", ylabel=DISTANCE)
    ax.set_xlabel(r"$\varepsilon$ / largest stable $\varepsilon$ at the limit point")


def _draw_betas(ax: Axes, results: xr.Dataset) -> None:
    one = results.isel(case=0)
    ax.plot(one["rho"], one["beta"], "o-", label=r"$1 - \rho(1-\beta)$")
    ax.plot(one["rho"], one["beta_to_the_rho"], "s--", label=r"$\beta^\rho$")
    ax.set(ylabel=r"accelerated $\beta$")
    _speed_axis(ax, one["rho"].to_numpy())
    ax.legend()


def _speed_axis(ax: Axes, rho: np.ndarray) -> None:
    ax.set(xscale="log", xlabel=r"speed-up $\rho$")
    _plain_ticks(ax.xaxis, [float(r) for r in rho if np.log2(r) % 1 == 0])


def _plain_ticks(axis: Axis, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    seen = np.isfinite(values).any(axis=1)
    x, (low, middle, high) = x[seen], band(values[seen], axis=1)
    ax.plot(x, middle, "o-", ms=3.5, color=colour, label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)

"""The figure of the (gamma, beta) plane."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, StrMethodFormatter

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

TITLES = {
    "recovery_error": r"$\|\theta_\infty - \theta^*\|/\|\theta^*\|$",
    "balancedness_ratio": r"$\|\Delta_\infty\|_1/\|\Delta_0\|_1$",
    "time": r"time to converge, $k\varepsilon$",
    "steps": "steps to converge, $k$",
    "sign_changes": r"1 + sign changes of $w_\pm$",
    "diverged": "share of data sets diverged",
}
SHOWN = {
    "recovery_error": "error",
    "balancedness_ratio": r"$\|\Delta_\infty\|_1$",
    "time": "time",
    "steps": "steps",
    "sign_changes": "signs",
}
NAMES = {
    "lambda": r"$\lambda$",
    "lambda_KS": r"$\lambda_{\mathrm{KS}}$",
    "gamma": r"$\gamma$",
    "1 - beta": r"$\beta$",
    "eps": r"$\varepsilon$",
}
MARKERS = "osv^D"
DASHED = "#f0027f"
"""A colour that is far from both ends and the middle of either colour map."""
LEVELS = (0.1, 1, 10, 100, 1000)


def draw(results: xr.Dataset, along: xr.DataArray, explained: float) -> Figure:
    """Six maps, and three views of what lambda explains.

    Args:
        results: maps and fits of `experiments.plane`.
        along: spread along the level lines, by region, quantity and bin of lambda.
        explained: the R^2 that counts as an explanation.
    """
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 6.8), layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=[1.75, 1])
        top, bottom = (figure.add_subfigure(part) for part in grid)
        maps = top.subplots(2, 3, sharex=True, sharey=True)
        for ax, name in zip(maps.ravel(), TITLES, strict=True):
            _draw_map(top, ax, results, name)
        for ax in maps[1]:
            ax.set_xlabel(r"step size $\gamma$")
        for ax in maps[:, 0]:
            ax.set_ylabel(r"momentum $\beta$")
        _label_levels(top)
        shares, powers, spreads = bottom.subplots(1, 3)
        _draw_shares(shares, results, explained)
        _draw_powers(powers, results)
        _draw_along(spreads, along)
    return figure


def _draw_map(figure: SubFigure, ax: Axes, results: xr.Dataset, name: str) -> None:
    """Median over the data sets; grey where fewer than half of them converged."""
    values, drag = results[name], 1 - results["beta"]
    shares = name == "diverged"
    middle = values.mean("data_seed") if shares else values.median("data_seed")
    middle = middle.where(values.notnull().mean("data_seed") >= 0.5)
    balanced = name == "balancedness_ratio"
    scale = Normalize(0, 1) if shares else _log_scale(middle.to_numpy(), symmetric=balanced)
    colours = "PuOr_r" if balanced else "cividis"
    ax.set(xscale="log", yscale="log", facecolor="0.8", title=TITLES[name])
    mesh = ax.pcolormesh(
        results["gamma"], drag, middle.T, norm=scale, cmap=colours, rasterized=True
    )
    bar = figure.colorbar(mesh, ax=ax, pad=0.02)
    if not shares:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        bar.ax.yaxis.set_minor_locator(LogLocator(subs=()))
    _draw_levels(ax, results)
    ticks = [beta for beta in (0.0, 0.5, 0.9, 0.99) if 1 - beta >= float(drag.min()) * 0.999]
    ax.set_yticks([1 - beta for beta in ticks], [f"{beta:g}" for beta in ticks])
    ax.minorticks_off()
    ax.grid(False)
    ax.set_ylim(float(drag.max()), float(drag.min()))


def _log_scale(values: np.ndarray, *, symmetric: bool) -> LogNorm:
    """A scale for the finite values, also if they are all equal or none; or one about 1."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (1.0, 1.0)
    if symmetric:
        low = min(low, 1 / high)
        high = 1 / low
    return LogNorm(low, max(high, 1.1 * low))


def _draw_levels(ax: Axes, results: xr.Dataset) -> None:
    """Level lines of lambda (black) and of lambda_KS (dashed)."""
    gamma, beta = np.meshgrid(results["gamma"], results["beta"])
    lam = gamma / (1 - beta) ** 2
    at = (gamma, 1 - beta)
    ax.contour(*at, lam * (1 + beta) / 2, LEVELS, colors=DASHED, linewidths=0.9, linestyles="--")
    lines = ax.contour(*at, lam, LEVELS, colors="k", linewidths=0.7)
    for label in ax.clabel(lines, fmt=lambda level: rf"$\lambda$={level:g}", fontsize=6):
        label.set_path_effects([withStroke(linewidth=1.5, foreground="w")])


def _label_levels(figure: SubFigure) -> None:
    dashed = Line2D([], [], color=DASHED, lw=0.9, ls="--")
    lines = [Line2D([], [], color="k", lw=0.9), dashed]
    names = [r"level lines of $\lambda$", r"the same levels of $\lambda_{\mathrm{KS}}$"]
    patch = Patch(color="0.8")
    figure.legend(
        [*lines, patch], [*names, "fewer than half converged"], ncols=3, loc="outside lower center"
    )


def _draw_shares(ax: Axes, results: xr.Dataset, explained: float) -> None:
    """R^2 of each quantity on each index: median and quartiles, resolved part of the plane."""
    for j, index in enumerate(NAMES):
        values = results["r_squared"].sel(region="resolved", index=index, quantity=list(SHOWN))
        low, middle, high = band(values.to_numpy())
        ax.errorbar(
            np.arange(len(SHOWN)) + (j - 2) * 0.15, middle, [middle - low, high - middle],
            fmt=MARKERS[j], ms=3.5, lw=0.8, label=NAMES[index],
        )  # fmt: skip
    ax.axhline(explained, color="k", lw=0.8, ls=":")
    ax.set_xticks(range(len(SHOWN)), list(SHOWN.values()))
    ax.set(ylim=(-0.1, 1.05), ylabel=r"share explained, $R^2$", title="one number for the plane")
    _legend_below(ax, "explained by", 5)


def _draw_powers(ax: Axes, results: xr.Dataset) -> None:
    """R^2 of gamma/(1-beta)^c against c: where is the best c?"""
    values = results["r_squared_of_power"].median("data_seed").sel(region="resolved")
    for (name, label), marker in zip(SHOWN.items(), MARKERS, strict=True):
        shown = values.sel(quantity=name)
        ax.plot(results["exponent"], shown, f"{marker}-", ms=3.5, lw=1, label=label)
    ax.axvline(2, color="k", lw=0.8, ls=":")
    ax.set(ylabel=r"share explained, $R^2$", ylim=(-0.1, 1.05))
    ax.set_xlabel(r"exponent $c$ of $\gamma/(1-\beta)^c$")
    ax.set_title(r"$c = 2$ is $\lambda$, $c = 1$ is $\varepsilon$")
    _legend_below(ax, None, 3)


def _draw_along(ax: Axes, along: xr.DataArray) -> None:
    """How far runs of equal lambda differ."""
    for j, name in enumerate(("recovery_error", "balancedness_ratio", "time")):
        for region, line in (("converged", ":"), ("resolved", "-")):
            shown = along.sel(region=region, quantity=name)
            label = SHOWN[name] if region == "resolved" else None
            ax.plot(along["lambda"], shown, line, color=f"C{j}", label=label)
    ax.plot([], [], "k:", label="near divergence too")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=r"$\lambda$",
        ylabel="relative spread (rms)",
        ylim=(1e-4, 3),
    )
    ax.set_title(r"along the level lines of $\lambda$")
    _legend_below(ax, None, 2)


def _legend_below(ax: Axes, title: str | None, columns: int) -> None:
    ax.legend(
        ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.3), title=title,
        columnspacing=0.8, handletextpad=0.4, handlelength=1.6,
    )  # fmt: skip

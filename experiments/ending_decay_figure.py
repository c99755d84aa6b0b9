"""The figure of `experiments.ending_decay`: a column for each design."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """What the integral explains, and the l1 norm against the smaller alpha and over lambda."""
    designs = results["design"].to_numpy()
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 6.2), layout="constrained")
        axes = figure.subplots(3, len(designs), sharey="row", squeeze=False)
        for (first, second, third), design in zip(axes.T, designs, strict=True):
            part = results.sel(design=design)
            _explained(first, part)
            first.set_title(str(design))
            over = part["excess"] / part["excess_direct"]
            _over_speed(second, over, part)
            if bool(over.notnull().any()):
                second.set(yscale="log")
            _over_lambda(third, part.isel(integral=-1))
        axes[0, 0].set_ylabel(r"explained: gain$/2I$")
        axes[1, 0].set_ylabel(r"$\ell_1$ excess over that of $\alpha e^{-I}$")
        axes[2, 0].set_ylabel(r"$\ell_1$ excess")
        # room for the legend
        axes[2, 0].set_ylim(top=30 * axes[2, 0].get_ylim()[1])
        axes[2, 0].legend(fontsize=6, ncols=2, loc="upper left")
        axes[0, -1].legend(
            handles=[
                Line2D([], [], marker="o", ls="", color=f"C{j}", label=rf"$\lambda$ = {lam:g}")
                for j, lam in enumerate(results["lam"].to_numpy())
            ],
            fontsize=6,
            ncols=2,
        )
    return figure


def _explained(ax: Axes, part: xr.Dataset) -> None:
    _over_speed(ax, part["explained"], part)
    speed = np.geomspace(*_ends(part), 200)
    linear = 2 * (1 - np.sqrt(np.maximum(1 - speed, 0))) / speed
    ax.plot(speed, linear, "k--", lw=1, zorder=0)


def _over_speed(ax: Axes, values: xr.DataArray, part: xr.Dataset) -> None:
    """Values over 4 lambda omega: a colour for each lambda, a filling for each integral."""
    shades = np.linspace(1.0, 0.0, part.sizes["integral"])
    for j, lam in enumerate(part["lam"].to_numpy()):
        for shade, integral in zip(shades, part["integral"].to_numpy(), strict=True):
            at = {"lam": lam, "integral": integral}
            chosen = values.sel(at).transpose("data_seed", "duration").to_numpy()
            low, middle, high = band(chosen)
            speed = 4 * lam * part["omega"].sel(at).to_numpy()
            ax.errorbar(
                speed, middle, np.abs([middle - low, high - middle]), fmt="o", ms=3, lw=0.6,
                color=f"C{j}", mfc=(*to_rgb(f"C{j}"), shade), mec=f"C{j}", mew=0.6,
            )  # fmt: skip
    ax.axhline(1, color="0.5", lw=0.6, zorder=0)
    ax.set(xscale="log", xlabel=r"$4\lambda\omega$")


def _ends(part: xr.Dataset) -> tuple[float, float]:
    speed = 4 * part["lam"] * part["omega"]
    return float(speed.min()), float(speed.max())


def _over_lambda(ax: Axes, part: xr.Dataset) -> None:
    lam = part["lam"].to_numpy()
    lines = {
        "no decay": part["excess_without"].isel(duration=0),
        r"$\alpha e^{-I}$": part["excess_direct"].isel(duration=0),
    } | {
        rf"ends at {one:g}$(1+\lambda)$": part["excess"].sel(duration=one)
        for one in part["duration"].to_numpy()
    }
    for j, (label, values) in enumerate(lines.items()):
        _, middle, _ = band(values.transpose("data_seed", "lam").to_numpy())
        # a limit may reach the least norm to rounding
        ax.plot(lam, np.maximum(middle, 1e-8), "--s" if j < 2 else "-o", ms=3, label=label)
    ax.set(xscale="log", xlabel=r"$\lambda$")
    if any(bool(values.notnull().any()) for values in lines.values()):
        ax.set(yscale="log")

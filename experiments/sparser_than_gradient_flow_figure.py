"""The figure of `experiments.sparser_than_gradient_flow`: a column for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

RATIOS = {
    "error": "recovery error over GF's",
    "excess": r"$\ell_1$ norm above the least," + "\nover GF's",
}
PARTS = {
    "limit": ("-", "MGF's limit"),
    "without_init": ("--", r"without $\tilde\theta_0$"),
    "size_only": (":", r"size of $\Delta_\infty$ only"),
}


def draw(results: xr.Dataset, explained: Sequence[str]) -> Figure:
    """Error, l1 norm, ln(Delta_0/Delta_inf), and what the error is made of.

    Args:
        results: of `experiments.sparser_than_gradient_flow`.
        explained: the designs in the last row.
    """
    settings = results["setting"].to_numpy()
    part = results.sel(eps="eps")
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 8.4), layout="constrained")
        axes = figure.subplots(4, len(settings), sharex=True, sharey="row", squeeze=False)
        for column, setting in zip(axes.T, settings, strict=True):
            one = part.sel(setting=setting)
            limit = one["error"].sel(part="limit")
            for ax, values in zip(column, (limit, one["excess"]), strict=False):
                _by_design(ax, values, "-")
            _by_design(column[2], one["gain_on"], "-")
            _by_design(column[2], one["gain_off"], "--")
            column[2].axhline(0, color="k", lw=0.8)
            _explain(column[3], one["error"], results["design"].to_numpy(), explained)
            for ax in (column[0], column[1], column[3]):
                _ratio(ax)
            column[0].set_title(f"$(n, d, s, \\alpha)$ =\n{setting}")
            column[3].set_xlabel(r"$\lambda$")
        for ax, label in zip(axes[:, 0], RATIOS.values(), strict=False):
            ax.set_ylabel(label)
        axes[2][0].set_ylabel(r"mean of $\ln(\Delta_0/\Delta_\infty)$")
        axes[3][0].set_ylabel("recovery error over GF's")
        _legend(figure, results["design"].to_numpy())
    return figure


def _legend(figure: Figure, designs: np.ndarray) -> None:
    colours = [Line2D([], [], color=f"C{j}", label=f"{d} data") for j, d in enumerate(designs)]
    lines = [
        Line2D([], [], color="k", ls=ls, label=label)
        for ls, label in (("-", "third row: on the support"), ("--", "off the support"))
    ]
    lines += [
        Line2D([], [], color="k", ls=ls, label=f"fourth row: {label}")
        for ls, label in PARTS.values()
    ]
    # columns are filled one after the other: designs in the first row, lines in the second
    rows = zip_longest(colours, lines, fillvalue=Line2D([], [], ls="", label=" "))
    handles = [handle for pair in rows for handle in pair]
    figure.legend(handles=handles, ncols=len(handles) // 2, loc="outside upper center")


def _by_design(ax: Axes, values: xr.DataArray, ls: str) -> None:
    for j, design in enumerate(values["design"].to_numpy()):
        _band(ax, values.sel(design=design), f"C{j}", ls)


def _explain(ax: Axes, error: xr.DataArray, designs: np.ndarray, explained: Sequence[str]) -> None:
    for j, design in enumerate(designs):
        if design in explained:
            for part, (ls, _) in PARTS.items():
                middle = error.sel(design=design, part=part).median("data_seed")
                ax.plot(error["lam"], middle, ls, color=f"C{j}", lw=1.2)


def _band(ax: Axes, values: xr.DataArray, colour: str, ls: str) -> None:
    """Median and quartiles where at least half of the data sets converged."""
    enough = values.notnull().mean("data_seed").to_numpy() >= 0.5
    if not enough.any():
        return
    low, middle, high = band(values.to_numpy()[enough], axis=1)
    lam = values["lam"].to_numpy()[enough]
    ax.plot(lam, middle, ls, color=colour, lw=1.2)
    ax.fill_between(lam, low, high, color=colour, alpha=0.13, lw=0)


def _ratio(ax: Axes) -> None:
    ax.set(xscale="log", yscale="log")
    ax.axhline(1, color="k", lw=0.8)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())

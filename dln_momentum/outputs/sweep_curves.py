"""Curves over the only axis of a sweep that is no seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from dln_momentum.engine import Status
from dln_momentum.outputs.sweep_maps import STATUS_COLOURS, WIDE


def draw_curve(ax: Axes, values: xr.DataArray, drawn: str, *, around_one: bool) -> None:
    """The median over all other axes, with a band from the lower to the upper quartile."""
    others = [name for name in values.dims if name != drawn]
    x = values[drawn].to_numpy()
    low, median, high = (values.quantile(q, others).to_numpy() for q in (0.25, 0.5, 0.75))
    if others:
        ax.fill_between(x, low, high, alpha=0.25, lw=0)
    ax.plot(x, median, marker="o", ms=3)
    if around_one:
        ax.axhline(1, color="0.5", lw=0.8, zorder=0)
    finite = median[np.isfinite(median)]
    if finite.size and finite.min() > 0 and finite.max() > WIDE * finite.min():
        ax.set_yscale("log")


def draw_shares(ax: Axes, results: xr.Dataset, drawn: Sequence[str]) -> None:
    """Which share of the runs ended in which way."""
    status, x = results["status"], results[drawn[0]].to_numpy()
    others = [name for name in status.dims if name not in drawn]
    ax.set_title("status, share of runs", fontsize=9)
    for code in Status:
        share = (status == code).mean(others)
        if share.any():
            ax.plot(x, share, marker="o", ms=3, color=STATUS_COLOURS[code], label=code.label)
    ax.set_ylim(-0.03, 1.03)
    ax.legend()

"""The figure of `experiments.schedules_compared`: a column for each design and lambda."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.figure import Figure

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band


def draw(results: xr.Dataset, ratio: xr.DataArray) -> Figure:
    """Excess over the constant schedule's, and what parts of the potential make of it."""
    cells = [(d, lam) for d in results["design"].values for lam in results["lam"].values]
    names = [str(name).replace("_", " ") for name in results["schedule"].values]
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots(2, len(cells), squeeze=False)
        for column, (design, lam) in zip(axes.T, cells, strict=True):
            one = {"design": design, "lam": lam}
            low, middle, high = band(ratio.sel(one).transpose("data_seed", "schedule").to_numpy())
            places = np.arange(len(names))
            column[0].barh(places, middle, color="C0", alpha=0.5)
            column[0].hlines(places, low, high, color="k", lw=0.8)
            column[0].axvline(1, color="k", lw=0.8)
            column[0].set(xscale="log", yticks=places, yticklabels=[])
            column[0].invert_yaxis()
            column[0].set_title(rf"{design}, $\lambda$ = {lam:g}", fontsize=6)
            part = results.sel(one)
            own = np.maximum(part["excess"].to_numpy().ravel(), 1e-12)
            for key, fill in (("excess_by_size", "none"), ("excess_without_c", "C0")):
                other = np.maximum(part[key].to_numpy().ravel(), 1e-12)
                column[1].plot(own, other, "o", ms=2, mfc=fill, color="C0", mew=0.4)
            ends = [float(np.nanmin(own)), float(np.nanmax(own))] if np.isfinite(own).any() else [1]
            column[1].plot(ends, ends, "k-", lw=0.8)
            column[1].set(xscale="log", yscale="log", xlabel=r"$\ell_1$ excess")
        axes[0, 0].set_yticklabels(names, fontsize=5.5)
        axes[1, 0].set_ylabel("by parts of the potential")
    return figure

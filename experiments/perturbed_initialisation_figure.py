"""The figure of `experiments.perturbed_initialisation`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import band
from experiments.flows import setting_title

MARKERS = "os^vD"
LABELS = {"rest": "from rest", "gradient": r"from $\dot w_0 = -\nabla F(w_0)$"}


def draw(config: DictConfig, results: xr.Dataset) -> Figure:
    """Size of theta~_0, error of its leading term, and the fitted orders."""
    with style():
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        size, error, order = figure.subplots(1, 3)
        for number in range(results.sizes["setting"]):
            part = results.isel(setting=number)
            for start, face in (("rest", f"C{number}"), ("gradient", "white")):
                look = {"marker": MARKERS[number], "mfc": face, "color": f"C{number}", "ms": 3.5}
                _band(size, part["size"].sel(start=start), look)
                _band(error, part["formula_error"].sel(start=start), look)
                slopes = np.sort(part["order"].sel(start=start).to_numpy())
                place = number + 0.6 * (np.arange(len(slopes)) / max(len(slopes) - 1, 1) - 0.5)
                order.plot(place, slopes, ls="", **look)
        _guides(size, results)
        for ax in (size, error):
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$")
        size.set_ylabel(r"$\|\tilde\theta_0\| / \|\theta_\infty\|$")
        error.set_ylabel(r"relative error of the leading term")
        for slope in (1, 2):
            order.axhline(slope, color="k", lw=0.8, ls=":")
        order.set(ylabel=r"fitted order in $\lambda$", xlabel="a mark for each data set")
        order.set_xticks([])
        handles = [
            Line2D([], [], color=f"C{i}", marker=MARKERS[i], ms=3.5, label=setting_title(setting))
            for i, setting in enumerate(config.settings)
        ]
        handles += [
            Line2D([], [], color="k", marker="o", ls="", mfc=face, ms=3.5, label=LABELS[start])
            for start, face in (("rest", "k"), ("gradient", "white"))
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _band(ax: Axes, values: xr.DataArray, look: dict) -> None:
    low, middle, high = band(values.to_numpy(), axis=1)
    ax.plot(values["lam"], middle, lw=1.2, **look)
    ax.fill_between(values["lam"], low, high, color=look["color"], alpha=0.15, lw=0)


def _guides(ax: Axes, results: xr.Dataset) -> None:
    lam = results["lam"].to_numpy()
    for start, slope, dashes in (("rest", 2, ":"), ("gradient", 1, "--")):
        middle = results["size"].sel(start=start).isel(lam=0).median("data_seed").min()
        ax.plot(lam, float(middle) / 3 * (lam / lam[0]) ** slope, "k", ls=dashes, lw=1,
                label=f"slope {slope}")  # fmt: skip
    ax.legend(loc="upper left", fontsize=7)

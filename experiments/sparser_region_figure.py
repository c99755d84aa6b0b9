"""The figure of `experiments.sparser_region`: a column for each design."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL

LARGEST = 0.5
"""End of the colours of the difference of the gains."""


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """Share of sparser limits and difference of the gains, over lambda and alpha."""
    designs = results["design"].to_numpy()
    sparser = (results["excess"] < 1).mean("data_seed")
    enough = results["excess"].notnull().mean("data_seed") >= 0.5
    log = abs(np.log(2 * results["alpha"] ** 2))
    ahead = ((results["gain_off"] - results["gain_on"]) / log).median("data_seed")
    signs = results["signs_changed"].mean("data_seed")
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots(2, len(designs), sharex=True, sharey=True, squeeze=False)
        image = difference = None
        for column, design in zip(axes.T, designs, strict=True):
            one = {"design": design}
            image = _image(column[0], sparser.where(enough).sel(one), "viridis", 0, 1)
            _cross(column[0], (sparser >= config.share).sel(one))
            difference = _image(column[1], ahead.where(enough).sel(one), "RdBu", -LARGEST, LARGEST)
            _contour(column[1], signs.sel(one))
            column[0].set_title(str(design), fontsize=6)
            column[1].set_xlabel(r"$\lambda$")
        for row in axes:
            row[0].set_ylabel(r"$\alpha$")
        if image is not None and difference is not None:
            figure.colorbar(image, ax=axes[0], label="share sparser")
            figure.colorbar(difference, ax=axes[1], label="gain off less on")
    return figure


def _image(ax: Axes, values: xr.DataArray, colours: str, low: float, high: float):
    ax.set_facecolor("0.8")
    ax.set(xscale="log", yscale="log")
    ax.grid(False)
    return ax.pcolormesh(
        values["lam"], values["alpha"], values.transpose("alpha", "lam"),
        cmap=colours, vmin=low, vmax=high, shading="nearest",
    )  # fmt: skip


def _cross(ax: Axes, holds: xr.DataArray) -> None:
    alpha, lam = np.nonzero(holds.transpose("alpha", "lam").to_numpy())
    ax.plot(holds["lam"].to_numpy()[lam], holds["alpha"].to_numpy()[alpha], "wx", ms=2.5, mew=0.7)


def _contour(ax: Axes, share: xr.DataArray) -> None:
    if min(share.sizes["alpha"], share.sizes["lam"]) > 1:
        ax.contour(
            share["lam"], share["alpha"], share.transpose("alpha", "lam"),
            levels=[0.5], colors="k", linewidths=0.8,
        )  # fmt: skip

"""The figure of `experiments.depth`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """Sparsity over lambda and D, the label, who crosses 0, certificates, recovery."""
    finest = results.isel(eps=-1, drop=True)
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots(2, 3)
        _over_lambda(axes[0, 0], finest["excess"])
        axes[0, 0].set(yscale="log", ylabel=r"$\ell_1$ excess")
        _over_depth(axes[0, 1], finest["excess"])
        moved = results["moved"].isel(halving=-1, drop=True)
        _over_lambda(axes[0, 2], moved.sel(lam=moved["lam"] > 0))
        axes[0, 2].axhline(config.label, color="0.5", lw=0.8)
        axes[0, 2].set(yscale="log", ylabel="moved by halving eps")
        _shares(axes[1, 0], finest)
        _certificates(axes[1, 1], results)
        _over_lambda(axes[1, 2], finest["error"])
        axes[1, 2].set(yscale="log", ylabel=r"$\|\theta - \theta^*\|$")
    return figure


def _place(lam: xr.DataArray) -> np.ndarray:
    """lambda on a log axis; 0 a decade below the smallest other."""
    values = lam.to_numpy().astype(float)
    return np.where(values > 0, values, values[values > 0].min() / 10)


def _over_lambda(ax: Axes, values: xr.DataArray) -> None:
    x = _place(values["lam"])
    for j, depth in enumerate(values["depth"].to_numpy()):
        low, middle, high = band(values.sel(depth=depth).transpose("data_seed", "lam").to_numpy())
        ax.plot(x, middle, "o-", ms=3, color=f"C{j}", label=f"{depth:g}")
        ax.fill_between(x, low, high, color=f"C{j}", alpha=0.12, lw=0)
    ax.set(xscale="log", xlabel=r"$\lambda$ (leftmost: 0)")


def _over_depth(ax: Axes, excess: xr.DataArray) -> None:
    known = excess.notnull().mean("data_seed").min("depth") >= 0.5
    lams = [lam for lam in excess["lam"].to_numpy() if bool(known.sel(lam=lam))] or [0]
    for j, lam in enumerate(dict.fromkeys((lams[0], lams[-1]))):
        low, middle, high = band(excess.sel(lam=lam).transpose("data_seed", "depth").to_numpy())
        ax.errorbar(
            excess["depth"], middle, np.abs([middle - low, high - middle]), fmt="o-", ms=3,
            color=f"C{j + 5}", label=rf"$\lambda$ = {lam:g}",
        )  # fmt: skip
    ax.set(xlabel="D", ylabel=r"$\ell_1$ excess", yscale="log")
    ax.legend(fontsize=6)


def _shares(ax: Axes, finest: xr.Dataset) -> None:
    x = _place(finest["lam"])
    sparser = (finest["excess"] < finest["excess"].sel(lam=0, drop=True)).mean("data_seed")
    crossed = finest["crossed"].mean("data_seed")
    for j, depth in enumerate(finest["depth"].to_numpy()):
        ax.plot(x, crossed.sel(depth=depth), "o-", ms=3, color=f"C{j}", label=f"{depth:g}")
        ax.plot(x, sparser.sel(depth=depth), "s--", ms=2.5, lw=0.8, color=f"C{j}")
    ax.set(xscale="log", xlabel=r"$\lambda$ (leftmost: 0)", ylabel="share of runs")
    ax.legend(fontsize=6, title="D", loc="upper left")


def _certificates(ax: Axes, results: xr.Dataset) -> None:
    for j, depth in enumerate(results["depth"].to_numpy()):
        values = results["identity"].sel(depth=depth).to_numpy().ravel()
        values = np.maximum(values[np.isfinite(values)], 1e-17)
        ax.plot(np.full(values.size, depth), values, "o", ms=1.5, alpha=0.3, color=f"C{j}")
    ax.set(yscale="log", xlabel="D", ylabel="error of the identity")

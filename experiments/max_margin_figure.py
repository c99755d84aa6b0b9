"""The figure of `experiments.max_margin`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band


def draw(results: xr.Dataset, power: xr.DataArray, config: DictConfig) -> Figure:
    """Deficits and distances over ln t, momentum against none, exponents, both ends."""
    first = results.isel(loss=0)
    constant = int((first["growing"].isel(alpha=0, lam=0) == 0).sum())
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots(2, 3)
        for ax, lam in zip(axes[0], (config.lams[0], config.lams[-1]), strict=False):
            _over_time(ax, first.sel(lam=lam), {"deficit_l1": "-"}, constant)
            ax.set(yscale="log", ylabel=r"deficit of the $\ell_1$ margin")
            ax.set_title(rf"$\lambda$ = {lam:g}")
        axes[0, 0].legend(fontsize=6, title=r"$\alpha$")
        distances = {"to_l1": "-", "to_l2": "--"}
        _over_time(axes[0, 2], first.sel(lam=config.lams[0]), distances, constant)
        axes[0, 2].set(ylabel="distance of directions")
        _momentum(axes[1, 0], first, config)
        _exponents(axes[1, 1], power)
        _ends(axes[1, 2], results.isel(loss=-1), constant)
    return figure


def _over_time(ax: Axes, part: xr.Dataset, keys: dict[str, str], constant: int) -> None:
    for j, alpha in enumerate(part["alpha"].to_numpy()):
        one = part.sel(alpha=alpha)
        x = one["log_time"].to_numpy()
        for key, ls in keys.items():
            low, middle, high = band(one[key].transpose("data_seed", "record").to_numpy())
            ax.plot(x, middle, ls, color=f"C{j}", label=f"{alpha:g}" if ls == "-" else None)
            ax.fill_between(x, low, high, color=f"C{j}", alpha=0.12, lw=0)
        ax.axvline(x[constant - 1], color=f"C{j}", ls=":", lw=0.6)
    ax.set(xscale="log", xlabel=r"$\ln t$")


def _momentum(ax: Axes, part: xr.Dataset, config: DictConfig) -> None:
    plain, heavy = part.sel(lam=config.lams[0]), part.sel(lam=config.lams[-1])
    for j, alpha in enumerate(part["alpha"].to_numpy()):
        x = heavy["log_time"].sel(alpha=alpha).to_numpy()
        rows = []
        for seed in range(part.sizes["data_seed"]):
            flow = plain.sel(alpha=alpha).isel(data_seed=seed)
            own = np.interp(x, flow["log_time"], flow["deficit_l1"])
            rows.append(heavy["deficit_l1"].sel(alpha=alpha).isel(data_seed=seed) / own)
        low, middle, high = band(np.array(rows))
        ax.plot(x, middle, color=f"C{j}")
        ax.fill_between(x, low, high, color=f"C{j}", alpha=0.12, lw=0)
    ax.axhline(1, color="0.5", lw=0.6)
    ax.set(xscale="log", yscale="log", xlabel=r"$\ln t$")
    ax.set_ylabel(rf"deficit at $\lambda$ = {config.lams[-1]:g} over that at 0")


def _exponents(ax: Axes, power: xr.DataArray) -> None:
    power = power.isel(loss=0)
    for j, alpha in enumerate(power["alpha"].to_numpy()):
        for k, _ in enumerate(power["lam"].to_numpy()):
            values = power.sel(alpha=alpha).isel(lam=k).to_numpy()
            x = k + 0.2 * (j - 1) + np.linspace(-0.06, 0.06, values.size)
            ax.plot(x, values, "o", ms=2, alpha=0.6, color=f"C{j}")
    ax.set_xticks(range(power.sizes["lam"]), [f"{lam:g}" for lam in power["lam"].to_numpy()])
    ax.set(xlabel=r"$\lambda$", ylabel=r"exponent in $\ln t$")


def _ends(ax: Axes, part: xr.Dataset, constant: int) -> None:
    for j, alpha in enumerate(part["alpha"].to_numpy()):
        one = part["deficit_l1"].sel(alpha=alpha)
        x, y = (one.isel(record=k).to_numpy().ravel() for k in (constant - 1, -1))
        ax.plot(x, y, "o", ms=2, alpha=0.6, color=f"C{j}")
    ax.set(xscale="log", yscale="log", xlabel="deficit, constant step size", ylabel="deficit, last")
    ax.xaxis.set_minor_formatter(NullFormatter())

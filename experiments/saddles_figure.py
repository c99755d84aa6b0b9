"""The figure of `experiments.saddles`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band


def draw(results: xr.Dataset, config: DictConfig) -> Figure:
    """Two paths and their predictions above, errors and ends below."""
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots(2, 3)
        for ax, lam in zip(axes[0], config.shown_lams, strict=False):
            _draw_path(ax, results.sel(shown_lam=lam), "theta")
            ax.set_title(rf"$\lambda$ = {lam:g}")
        axes[0, 0].set_ylabel(r"$\theta_i$")
        _draw_path(axes[0, 2], results.sel(shown_lam=config.shown_lams[-1]), "exponent")
        axes[0, 2].set_ylabel(r"$\ln|w|/\ln(1/\alpha)$")
        axes[0, 2].set_title(rf"$\lambda$ = {config.shown_lams[-1]:g}")
        _draw_errors(axes[1, 0], results.isel(setting=0))
        smallest = results.isel(alpha=-1)
        _over_lambda(axes[1, 1], (smallest["saddle_to_l1"] > config.same).sum("data_seed"))
        axes[1, 1].set_ylabel(r"data sets off the least $\ell_1$ norm")
        _ends(axes[1, 2], smallest)
    return figure


def _draw_path(ax: Axes, part: xr.Dataset, key: str) -> None:
    tau = part["example_tau"].to_numpy()
    for measured, predicted in zip(
        part[f"example_{key}"].T.to_numpy(),
        part[f"example_{key}_predicted"].T.to_numpy(),
        strict=True,
    ):
        (line,) = ax.plot(tau, measured, lw=0.8)
        ax.plot(tau, predicted, "--", lw=1.0, color=line.get_color(), alpha=0.6)
    ax.set_xlabel(r"$\tau = t/\ln(1/\alpha)$")


def _draw_errors(ax: Axes, part: xr.Dataset) -> None:
    log = -1 / np.log(part["alpha"].to_numpy())
    for j, lam in enumerate(part["lam"].to_numpy()):
        for predictor, fill, ls in zip(
            part["predictor"].to_numpy(), (f"C{j}", "none"), ("-", ":"), strict=True
        ):
            error = part["exponent_error"].sel(lam=lam, predictor=predictor)
            low, middle, high = band(error.transpose("data_seed", "alpha").to_numpy())
            ax.plot(log, middle, f"o{ls}", color=f"C{j}", mfc=fill, ms=3, lw=1.0)
            if ls == "-":
                ax.fill_between(log, low, high, color=f"C{j}", alpha=0.13, lw=0)
    ax.set(xscale="log", yscale="log", xlabel=r"$1/\ln(1/\alpha)$", ylabel="error of the exponents")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(
        handles=[
            Line2D([], [], color=f"C{j}", label=rf"$\lambda$ = {lam:g}")
            for j, lam in enumerate(part["lam"].to_numpy())
        ],
        fontsize=5,
        ncols=2,
    )


def _over_lambda(ax: Axes, count: xr.DataArray) -> None:
    count = count.sel(lam=count["lam"] > 0)
    for j, setting in enumerate(count["setting"].to_numpy()):
        ax.plot(
            count["lam"], count.sel(setting=setting), "o-", ms=3, color=f"C{j}", label=str(setting)
        )
    ax.set(xscale="log", xlabel=r"$\lambda$")
    ax.legend(fontsize=6, title="(n, d, s)")


def _ends(ax: Axes, smallest: xr.Dataset) -> None:
    """Each run's end: distance to the predicted saddle against that of the saddle to least l1."""
    for j, setting in enumerate(smallest["setting"].to_numpy()):
        part = smallest.sel(setting=setting, lam=smallest["lam"] > 0)
        x, y = (part[key].to_numpy().ravel() for key in ("saddle_to_l1", "end_to_saddle"))
        ax.plot(np.maximum(x, 1e-16), np.maximum(y, 1e-16), "o", ms=2.5, alpha=0.5, color=f"C{j}")
    ax.set(xlabel=r"last saddle to least $\ell_1$ norm", ylabel="end of the run to last saddle")
    if bool(smallest["end_to_saddle"].notnull().any()):
        ax.set(xscale="log", yscale="log")

"""The figure of `experiments.mirror_flow`: a moving potential, and the equalities over lambda."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from dln_momentum.theory.entropy import hyperbolic_entropy
from experiments.common import band
from experiments.flows import setting_title

MARKERS = "os^vD"


def draw(config: DictConfig, results: xr.Dataset) -> Figure:
    """Delta_t, b_t and Phi_t along one path; residual, three-point identity and T over lambda."""
    with style():
        figure = Figure(figsize=(7.4, 5.0), layout="constrained")
        (delta, linear, potential), (residual, identity, start) = figure.subplots(2, 3)
        _paths(delta, results, "example_balancedness", r"$\Delta_{t,i}\,/\,\Delta_{0,i}$", True)
        _paths(linear, results, "example_linear_term", r"$b_{t,i}$", False)
        _potential(potential, results)
        title = setting_title(config.settings[0])
        linear.set_title(rf"one path: {title}, $\lambda$ = {config.example_lam:g}", fontsize=9)
        three_point = results["three_point"].max("interpolator")
        times = results["start"].where(results["crossed"] == 1)
        for number, marker in zip(range(len(config.settings)), MARKERS, strict=False):
            label = setting_title(config.settings[number])
            for ax, values in ((residual, results["residual"]), (identity, three_point)):
                _band(ax, values.isel(setting=number), marker, label)
            _band(start, times.isel(setting=number), marker, label)
        residual.set_ylabel("residual of the mirror flow,\nlargest over t, relative")
        identity.set_ylabel("violation of the three-point\nidentity, relative")
        start.set_ylabel("T from which it holds,\nruns with sign changes")
        for ax in (residual, identity, start):
            ax.set(xscale="log", yscale="log", xlabel=r"$\lambda$")
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_xlim(min(config.lams) / 1.5, max(config.lams) * 1.5)
        figure.legend(*residual.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _band(ax: Axes, values: xr.DataArray, marker: str, label: str) -> None:
    values = values.transpose("lam", "data_seed").dropna("lam", how="all")
    low, middle, high = band(values.to_numpy(), axis=1)
    ax.plot(values["lam"], middle, marker=marker, ms=3.5, label=label)
    ax.fill_between(values["lam"], low, high, alpha=0.2, lw=0)


def _paths(ax: Axes, results: xr.Dataset, name: str, ylabel: str, relative: bool) -> None:
    values, support = results[name].to_numpy(), results["example_support"].to_numpy().astype(bool)
    values = values / values[0] if relative else values
    for some, colour, label in ((~support, "0.6", "off support"), (support, "C1", "on support")):
        lines = ax.plot(results["t"][1:], values[1:, some], color=colour, lw=0.8)
        lines[0].set_label(label)
    ax.set(xscale="log", xlabel="time t", ylabel=ylabel, xlim=(0.03, None))
    if not relative:
        # between the first two paths, which is empty once b_t has settled
        ax.legend(loc="center right", bbox_to_anchor=(1.03, 0.72), handlelength=1.0, fontsize=7)


def _potential(ax: Axes, results: xr.Dataset) -> None:
    """Phi_t of the coordinate whose Delta_t falls most, at the start, half-way and at the end."""
    delta, b = (results[f"example_{key}"].to_numpy() for key in ("balancedness", "linear_term"))
    i = int((delta[-1] / delta[0]).argmin())
    half = int(np.abs(delta[:, i] - (delta[0, i] + delta[-1, i]) / 2).argmin())
    theta = np.linspace(-2, 2, 201) * delta[0, i]
    t = results["t"].to_numpy()
    for k, dashes, label in (
        (0, ":", "t = 0"),
        (half, "--", f"t = {t[half]:.2g}"),
        (-1, "-", "end"),
    ):
        psi = hyperbolic_entropy(torch.from_numpy(theta)[:, None], torch.tensor([delta[k, i]]))
        ax.plot(
            theta / delta[0, i], (psi.numpy() - b[k, i] * theta) / delta[0, i], dashes, label=label
        )
    ax.set(xlabel=rf"$\theta_i\,/\,\Delta_{{0,i}}$, coordinate i = {i}")
    ax.set_ylabel(r"$\Phi_{t,i}(\theta_i)\,/\,\Delta_{0,i}$")
    ax.legend(loc="upper center")

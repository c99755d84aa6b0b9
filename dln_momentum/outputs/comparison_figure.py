"""A run and its flows on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.outputs.plotting import LARGEST, MOST_LINES, spans_a_decade, style

LOOKS = {
    "run": {"color": "k", "ls": "-", "lw": 2.0, "alpha": 0.5},
    "flow": {"color": "C0", "ls": "--"},
    "flow_ks": {"color": "C1", "ls": ":", "lw": 2.0},
}


def comparison_figure(found: xr.Dataset, summary: Mapping[str, Any]) -> Figure:
    r"""Loss, ||theta||_1, Delta and the distances of a run and its flows against t.

    The data are those of `dln_momentum.outputs.comparison.compared`.
    """
    names = {
        "run": rf"run, $\varepsilon$ = {summary['eps']:.3g}",
        "flow": rf"flow, $\lambda$ = {summary['lam']:.3g}",
        "flow_ks": rf"flow, $\lambda_{{KS}}$ = {summary['lam_ks']:.3g}",
    }
    with style():
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        loss, norm, balancedness, gap = figure.subplots(2, 2).flat
        for ax, name, label in (
            (loss, "train_loss", "training loss"),
            (norm, "l1_norm", r"$\|\theta\|_1$"),
            (balancedness, "balancedness", r"balancedness $\Delta_i$, a line per coordinate"),
        ):
            for path, look in LOOKS.items():
                _draw(ax, found, path, name, look, names[path])
            ax.set(xscale="log", xlabel="time t = k eps (0 drawn at the left)", ylabel=label)
            if spans_a_decade(np.abs(found[name].to_numpy())):
                ax.set_yscale("log")
        loss.legend()
        for path in ("flow", "flow_ks"):
            value = found[f"distance_to_{path}"].where(lambda x: x > 1 / LARGEST)
            gap.plot(_clock(found, "run"), value, label=names[path], **LOOKS[path])
        gap.set(
            xscale="log",
            yscale="log",
            xlabel="time t = k eps",
            ylabel=r"$\|\theta_k - \theta(t_k)\|$",
        )
        gap.legend()
        figure.suptitle(
            rf"{summary['data']}: $\gamma$ = {summary['gamma']:g}, $\beta$ = {summary['beta']:g}"
        )
        return figure


def _clock(found: xr.Dataset, path: str) -> np.ndarray:
    """The times of a path, 0 shown at half the next one."""
    times = found["time"].sel(path=path).to_numpy()
    positive = times[times > 0]
    return np.maximum(times, positive.min() / 2 if positive.size else 0.5)


def _draw(
    ax: Axes, found: xr.Dataset, path: str, name: str, look: Mapping[str, Any], label: str
) -> None:
    values = found[name].sel(path=path)
    values = values.where((abs(values) > 1 / LARGEST) & (abs(values) < LARGEST))
    if "coordinate" not in values.dims:
        ax.plot(_clock(found, path), values, label=label, **look)
        return
    every = -(-values.sizes["coordinate"] // MOST_LINES)
    thin = {"lw": 0.8, "alpha": 0.5, "color": look["color"], "ls": look["ls"]}
    ax.plot(_clock(found, path), values.isel(coordinate=slice(None, None, every)), **thin)

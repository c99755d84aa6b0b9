"""The figure of `experiments.discretisation`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.outputs.plotting import style
from experiments.common import band

FLOWS = ("lambda", "lambda_ks")
ORDERS = (1, 2)
LABELS = (r"MGF($\lambda$)", r"MGF($\lambda_{KS}$)")
EXAMPLE = 1
"""The case whose paths and bound are drawn."""


def draw(results: xr.Dataset) -> Figure:
    """Paths overlaid, errors against eps, errors against their bound, and fitted orders."""
    with style():
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        paths, slopes, growth, orders = figure.subplots(2, 2).flat
        _draw_paths(paths, results)
        _draw_errors(slopes, results)
        _draw_bound(growth, results)
        _draw_orders(orders, results)
    return figure


def _draw_paths(ax: Axes, results: xr.Dataset) -> None:
    first = results.isel(case=EXAMPLE, halving=0)
    t, example = first["time"], results["example_theta"]
    looks = {
        "MGD": {"ls": "", "marker": "o", "ms": 3, "markevery": 3, "color": "C0"},
        "lambda": {"ls": "-", "color": "C1"},
        "lambda_ks": {"ls": "--", "color": "k"},
    }
    labels = (rf"MGD, $\varepsilon$ = {float(first['eps']):g}", *LABELS)
    for (path, look), label in zip(looks.items(), labels, strict=True):
        lines = ax.plot(t, example.sel(path=path), **look, lw=1.2)
        lines[0].set_label(label)
    ax.set(xlabel=r"time $t = k\varepsilon$", ylabel=r"predictor $\theta_i$")
    name = _mathematical(str(first["case"].values))
    ax.set_title(f"{name}, one data set", fontsize=8)
    ax.set_xlim(right=0.6 * float(t[-1]))
    ax.legend(loc="lower left", handlelength=1.4, handletextpad=0.5, borderaxespad=0.1, fontsize=7)


def _draw_errors(ax: Axes, results: xr.Dataset) -> None:
    for i, case in enumerate(results["case"].values):
        one = results.sel(case=case)
        for flow, look in zip(FLOWS, ("o-", "s--"), strict=True):
            low, middle, high = band(one["error"].sel(flow=flow).max("point").to_numpy(), axis=1)
            ax.plot(one["eps"], middle, look, color=f"C{i}", ms=4)
            ax.fill_between(one["eps"], low, high, color=f"C{i}", alpha=0.2, lw=0)
        ax.plot([], [], color=f"C{i}", label=_mathematical(case))
    ax.plot([], [], "ko-", ms=4, label=f"to {LABELS[0]}")
    ax.plot([], [], "ks--", ms=4, label=f"to {LABELS[1]}")
    ax.set(xscale="log", yscale="log", xlabel=r"step $\varepsilon = \gamma/(1-\beta)$")
    ax.set_ylabel(r"$\max_k \|w_k - w(t_k)\|_\infty$")
    ax.set_ylim(top=300)
    ax.legend(fontsize=7, loc="upper left")


def _draw_bound(ax: Axes, results: xr.Dataset) -> None:
    one = results.isel(case=EXAMPLE, halving=results.sizes["halving"] // 2)
    t = one["time"]
    low, middle, high = band(one["log10_bound"].to_numpy())
    ax.plot(t, middle, color="k", label=r"bound $e^{CK}\varepsilon$")
    ax.fill_between(t, low, high, color="k", alpha=0.2, lw=0)
    for flow, label, colour in zip(FLOWS, LABELS, ("C1", "C0"), strict=True):
        low, middle, high = band(np.log10(one["error"].sel(flow=flow).to_numpy()))
        ax.plot(t, middle, color=colour, label=f"error to {label}")
        ax.fill_between(t, low, high, color=colour, alpha=0.3, lw=0)
    ax.set(xlabel=r"time $t = k\varepsilon$", ylabel=r"$\log_{10} \|w_k - w(t_k)\|_\infty$")
    name = _mathematical(str(one["case"].values))
    ax.set_title(rf"{name}, $\varepsilon$ = {float(one['eps']):g}", fontsize=8)
    ax.legend(loc="upper left")


def _draw_orders(ax: Axes, results: xr.Dataset) -> None:
    for i, case in enumerate(results["case"].values):
        for flow, mark, order in zip(FLOWS, "os", ORDERS, strict=True):
            values = results["order"].sel(case=case, flow=flow)
            x = i + np.linspace(-0.3, 0.3, len(values))
            ax.plot(x, np.sort(values), mark, ms=3.5, color=f"C{i}")
            ax.axhline(order, color="0.3", lw=0.8, ls=":")
    names = [_mathematical(str(case)).replace(", $", "\n$") for case in results["case"].values]
    ax.set_xticks(range(len(names)), names)
    ax.tick_params(axis="x", labelsize=7)
    ax.set(ylabel=r"fitted order in $\varepsilon$", ylim=(0.7, 2.4))
    ax.set_xlabel("setting (n, d, s, $\\alpha$); a mark for each data set")


def _mathematical(case: str) -> str:
    return case.replace("lambda", r"$\lambda$")

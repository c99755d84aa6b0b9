"""The figure of a sweep: maps over its two largest axes, or curves over the only one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.engine import Status
from dln_momentum.outputs.plotting import style
from dln_momentum.outputs.sweep_curves import draw_curve, draw_shares
from dln_momentum.outputs.sweep_levels import level_names
from dln_momentum.outputs.sweep_maps import draw_map, draw_status
from dln_momentum.outputs.sweep_report import with_ratio
from dln_momentum.sweeps.axes import SEEDS, geometric

AXIS_LABELS = {
    "gamma": r"step size $\gamma$",
    "beta": r"momentum $\beta$",
    "lam": r"$\lambda$",
    "eps": r"$\varepsilon$",
    "alpha": r"initialisation scale $\alpha$",
    "seed": "seed",
    "data_seed": "data seed",
}


@dataclass(frozen=True)
class Panel:
    """One quantity of the figure."""

    name: str
    title: str
    around_one: bool = False
    """whether 1 is the value to compare with"""


PANELS = (
    Panel("recovery_error", r"recovery error $\|\theta_\infty - \theta^*\|_2$"),
    Panel("balancedness_ratio", r"$\|\Delta_\infty\|_1 \,/\, \|\Delta_0\|_1$", around_one=True),
    Panel("steps_to_tol", "steps to tolerance"),
    Panel("sign_changes", r"sign changes of $w_\pm$"),
    Panel("distance_to_gradient_flow_minimizer", "distance to the gradient-flow limit"),
)


def overview(results: xr.Dataset) -> Figure | None:
    """Recovery, balancedness, steps, sign changes, gradient-flow limit and status on one page.

    The two largest axes are drawn, seeds only if there are no others; over the axes that are left
    the figure shows medians (and the commonest status). Curves have a band from the lower to the
    upper quartile. It is None for a grid of one point.
    """
    drawn = drawn_axes(results)
    if not drawn:
        return None
    results = with_ratio(results).sortby(drawn)
    with style():
        figure = Figure(figsize=(12.5, 7.2), layout="constrained")
        panels = list(figure.subplots(2, 3, sharex=True, sharey=len(drawn) == 2).flat)
        for ax in panels:  # before anything is drawn: labels of level lines need the scales
            _label(ax, results, drawn)
        for ax, panel in zip(panels, PANELS, strict=False):
            _draw(ax, results, drawn, panel)
        ax = panels[len(PANELS)]
        (draw_status if len(drawn) == 2 else draw_shares)(ax, results, drawn)
        figure.suptitle("\n".join(_heading(results, drawn)), fontsize=10)
    return figure


def drawn_axes(results: xr.Dataset) -> list[str]:
    """The one or two axes that the figure is drawn over, in their order.

    >>> import numpy as np
    >>> grid = xr.Dataset({"status": (("gamma", "alpha", "seed"), np.zeros((4, 3, 9)))})
    >>> drawn_axes(grid)
    ['gamma', 'alpha']
    """
    sizes = results["status"].sizes
    parameters = [str(name) for name in sizes if name not in SEEDS]
    candidates = parameters or [str(name) for name in sizes]
    largest = sorted(candidates, key=lambda name: -sizes[name])[:2]
    return [name for name in candidates if name in largest]


def _draw(ax: Axes, results: xr.Dataset, drawn: list[str], panel: Panel) -> None:
    usable = ~results["status"].isin([Status.DIVERGED, Status.INVALID])
    values = results[panel.name].where(usable)
    ax.set_title(panel.title, fontsize=9)
    if not np.isfinite(values).any():
        ax.text(0.5, 0.5, "no value", transform=ax.transAxes, ha="center")
        if len(drawn) == 1:
            ax.set_yticks([])
    with warnings.catch_warnings():
        # the median of nothing but nan is nan, and is drawn as "no value"
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        if len(drawn) == 2:
            draw_map(ax, results, values, drawn, around_one=panel.around_one)
        elif np.isfinite(values).any():
            draw_curve(ax, values, drawn[0], around_one=panel.around_one)


def _label(ax: Axes, results: xr.Dataset, drawn: list[str]) -> None:
    ax.tick_params(labelbottom=True, labelleft=True)
    ax.set_xlabel(AXIS_LABELS[drawn[0]])
    if geometric(results[drawn[0]].to_numpy()):
        ax.set_xscale("log")
    if len(drawn) == 2:
        ax.set_ylabel(AXIS_LABELS[drawn[1]])
        if geometric(results[drawn[1]].to_numpy()):
            ax.set_yscale("log")


def _heading(results: xr.Dataset, drawn: list[str]) -> Iterator[str]:
    counts = results["status_label"].to_series().value_counts()
    endings = ", ".join(f"{count} {label}" for label, count in counts.items())
    yield f"{results.attrs['data']}: {results['status'].size} runs, {endings}"
    others = [f"{AXIS_LABELS[str(name)]} ({size})" for name, size in results["status"].sizes.items()
              if name not in drawn]  # fmt: skip
    notes = [f"medians over {' and '.join(others)}"] if others else []
    if len(drawn) == 2:
        names = {"lam": r"$\lambda$ (solid)", "lam_ks": r"$\lambda_{KS}$ (dashed)"}
        lines = [names[name] for name in level_names(results, drawn)]
        notes += [f"white: {' and '.join(lines)} at powers of ten"] if lines else []
        notes.append("black: edge of what converged; grey: no value")
    yield "; ".join(notes)

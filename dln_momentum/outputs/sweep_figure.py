"""The figure of a sweep: maps over its two largest axes, or curves over the only one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.engine import Status
from dln_momentum.outputs.drawing import (
    axis_label,
    draw_band,
    have_room,
    label_of,
    log_if_wide,
    set_scale,
)
from dln_momentum.outputs.plotting import style
from dln_momentum.outputs.quantities import QUANTITIES, SEEDS
from dln_momentum.outputs.sweep_maps import (
    STATUS_COLOURS,
    Levels,
    draw_map,
    draw_status,
    hatch,
    lambda_levels,
)

PANELS = {
    "recovery_error": r"recovery error $\|\theta_\infty - \theta^*\|_2$",
    "balancedness_ratio": r"$\|\Delta_\infty\|_1 \,/\, \|\Delta_0\|_1$",
    "steps_to_tol": "steps to tolerance",
    "sign_changes": r"sign changes of $w_\pm$",
    "distance_to_gradient_flow_minimizer": "distance to the gradient-flow limit",
}
AROUND_ONE = ("balancedness_ratio",)
"""Panels in which 1 is the value to compare with."""


def overview(results: xr.Dataset) -> Figure | None:
    """Recovery, balancedness, steps, sign changes, gradient-flow limit and status on one page.

    The two largest axes are drawn, seeds only if there are no others; over the axes that are left
    the figure shows medians (and the commonest status). Curves have a band from the lower to the
    upper quartile. It is None for a grid of one point.
    """
    drawn = drawn_axes(results)
    if not drawn:
        return None
    results, labels = _numbered(results, drawn)
    usable = ~results["status"].isin([Status.DIVERGED.label, Status.INVALID.label])
    others = [name for name in usable.dims if name not in drawn]
    share = usable.mean(others)
    partial = (share > 0) & (share < 1)
    levels = lambda_levels(results, drawn) if len(drawn) == 2 else {}
    with style():
        figure = Figure(figsize=(12.5, 7.2), layout="constrained")
        *panels, last = figure.subplots(2, 3, sharex=True, sharey=len(drawn) == 2).flat
        for ax in (
            *panels,
            last,
        ):  # before anything is drawn: labels of level lines need the scales
            _label(ax, results, drawn)
        for ax, (name, title) in zip(panels, PANELS.items(), strict=True):
            ax.set_title(title, fontsize=9)
            _draw(ax, results, results[name].where(usable), drawn, partial, levels)
            _ticks(ax, labels, drawn)
        if len(drawn) == 2:
            draw_status(last, results, drawn, levels)
        else:
            _draw_shares(last, results, drawn)
        _ticks(last, labels, drawn)
        figure.suptitle("\n".join(_heading(results, drawn, levels)), fontsize=10)
    return figure


def drawn_axes(results: xr.Dataset) -> list[str]:
    """The one or two axes that the figure is drawn over, in their order.

    >>> import numpy as np
    >>> grid = xr.Dataset({"status": (("gamma", "alpha", "seed"), np.zeros((4, 3, 9)))})
    >>> drawn_axes(grid)
    ['gamma', 'alpha']
    """
    sizes = results["status"].sizes
    candidates = [str(name) for name in sizes if name not in SEEDS] or [str(name) for name in sizes]
    largest = sorted(candidates, key=lambda name: -sizes[name])[:2]
    return [name for name in candidates if name in largest]


def _draw(
    ax: Axes,
    results: xr.Dataset,
    values: xr.DataArray,
    drawn: Sequence[str],
    partial: xr.DataArray,
    levels: Mapping[str, Levels],
) -> None:
    """The median of one quantity over the axes that are not drawn.

    Places where some of the runs have no value are marked (``partial``, over the drawn axes).
    """
    some = bool(np.isfinite(values).any())
    if not some:
        ax.text(0.5, 0.5, "no value", transform=ax.transAxes, ha="center")
    others = [name for name in values.dims if name not in drawn]
    around_one = values.name in AROUND_ONE
    with warnings.catch_warnings():
        # the median of nothing but nan is nan, and is drawn as "no value"
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        if len(drawn) == 2:
            draw_map(ax, results, values.median(others), drawn, levels, around_one=around_one)
            hatch(ax, partial.transpose(*drawn), drawn)
        elif some:
            # over no dimensions at all xarray returns the values themselves
            quartiles = values.expand_dims("one").quantile([0.25, 0.5, 0.75], [*others, "one"])
            draw_band(ax, quartiles[drawn[0]], quartiles.to_numpy(), partial.to_numpy(), color="C0")
            log_if_wide(ax, "y", quartiles[1])
            if around_one:
                ax.axhline(1, color="0.5", lw=0.8, zorder=0)
        else:
            ax.set_yticks([])


def _draw_shares(ax: Axes, results: xr.Dataset, drawn: Sequence[str]) -> None:
    """The fraction of the runs that ended in each status."""
    status = results["status"]
    ax.set_title("status, fraction of runs", fontsize=9)
    for code in Status:
        share = (status == code.label).mean([name for name in status.dims if name not in drawn])
        if share.any():
            colour = STATUS_COLOURS[code]
            ax.plot(share[drawn[0]], share, marker="o", ms=3, color=colour, label=code.label)
    ax.set_ylim(-0.03, 1.03)
    ax.legend()


def _label(ax: Axes, results: xr.Dataset, drawn: Sequence[str]) -> None:
    ax.tick_params(labelbottom=True, labelleft=True)
    for axis, name in zip("xy", drawn, strict=False):
        ax.set(**{f"{axis}label": axis_label(name)})
        set_scale(ax, axis, results[name].to_numpy())


def _ticks(ax: Axes, labels: dict[str, list[str]], drawn: Sequence[str]) -> None:
    for axis, name in zip("xy", drawn, strict=False):
        if name in labels:
            slant: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
            upright = axis == "y" or have_room(ax, labels[name])
            set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
            set_ticks(range(len(labels[name])), labels[name], **({} if upright else slant))


def _numbered(results: xr.Dataset, drawn: Sequence[str]) -> tuple[xr.Dataset, dict[str, list[str]]]:
    """The sweep with numbers on the drawn axes, and the labels of those that have text.

    An axis of text, and one along which several settings move together, gets its places.
    """
    labels: dict[str, list[str]] = {}
    for name in drawn:
        if name in results.coords and results[name].dtype.kind in "iuf":
            continue
        along = [value for value in results.coords.values() if value.dims == (name,)]
        rows = zip(*(value.to_numpy().tolist() for value in along), strict=True)
        labels[name] = [", ".join(map(label_of, row)) for row in rows]
        results = results.assign_coords({name: np.arange(results.sizes[name])})
    return results.sortby(list(drawn)), labels


def _heading(
    results: xr.Dataset, drawn: Sequence[str], levels: Mapping[str, Levels]
) -> Iterator[str]:
    status = results["status"]
    counts = status.to_series().value_counts()
    endings = ", ".join(f"{count} {label}" for label, count in counts.items())
    yield f"{results.attrs['data']}: {status.size} runs, {endings}"
    others = [f"{axis_label(str(name))} ({size})" for name, size in status.sizes.items()
              if name not in drawn]  # fmt: skip
    notes = [f"medians over {' and '.join(others)}"] if others else []
    if len(drawn) == 2:
        styles = {"lam": "solid", "lam_ks": "dashed"}
        lines = [f"${QUANTITIES[name].symbol}$ ({styles[name]})" for name in levels]
        notes += [f"white: {' and '.join(lines)} at powers of ten"] if lines else []
        notes.append("black: edge of what converged; grey: no value")
    if others:
        notes.append(
            "hatched: runs that ended differently" if len(drawn) == 2
            else "open circle: some of the runs have no value"
        )  # fmt: skip
    yield "; ".join(notes)

"""Figures of a table of runs: curves with bands, points, and heat maps, over any of its columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.engine import Status
from dln_momentum.errors import raise_if_any
from dln_momentum.outputs.drawing import (
    axis_label,
    colours,
    draw_band,
    log_if_wide,
    set_scale,
)
from dln_momentum.outputs.plotting import LARGEST, style
from dln_momentum.outputs.sweep_maps import draw_map, hatch, lambda_levels
from dln_momentum.outputs.table_axes import (
    Axis,
    choice_label,
    choices,
    coded,
    failed_runs,
    has_value,
    without_rounding,
    wrong_axes,
)
from dln_momentum.rates import PAIRS, gamma_beta, named_rates


def table_figure(table: pd.DataFrame, axes: Axis) -> Figure:
    """A figure of the runs in a table.

    Over everything that the axes do not name the figure shows medians, and curves have a band from
    the lower to the upper quartile. Runs that diverged, and grid points that are invalid, have no
    value: where that is some of the runs of a place and not all, a curve has an open circle and a
    heat map is hatched. Axes are logarithmic where their values are spaced by factors.

    Args:
        table: a row for each run, with the names of docs/quantities.md and keys of configs.
        axes: the columns to draw.

    Raises:
        InputError: for a name that is no column, with the nearest; values that are not numbers.
    """
    raise_if_any(wrong_axes(table, axes))
    table = without_rounding(table.reset_index(drop=True), axes)
    facets = [None] if axes.col is None else choices(table, axes.col, axes)
    columns = min(len(facets), 3 if len(facets) in (3, 5, 6, 9) else 4)
    rows = -(-len(facets) // columns)
    with style():
        size = (5.2, 3.8) if len(facets) == 1 else (3.6 * columns + 0.8, 3.0 * rows + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        panels: list[Axes] = list(grid.flat)
        for ax in panels[len(facets) :]:
            ax.set_axis_off()
        notes: dict[str, None] = {}
        for ax, value in zip(panels, facets, strict=False):
            part: Any = table if axes.col is None else table[has_value(table[axes.col], value)]
            notes |= dict.fromkeys(_DRAW[axes.kind](ax, part, axes, table))
            if axes.col is not None:
                ax.set_title(f"{axis_label(axes.col)} = {choice_label(value)}", fontsize=8)
        for ax in grid[-1]:
            ax.set_xlabel(axis_label(axes.x))
        for ax in grid[:, 0]:
            ax.set_ylabel(axis_label(axes.y))
        figure.suptitle("\n".join(_heading(table, axes, list(notes))), fontsize=8)
    return figure


def _places(ax: Axes, table: Any, whole: Any, name: str) -> np.ndarray:
    """The values of x as numbers; text gets a place each, and the axis its labels."""
    column = table[name]
    if column.dtype.kind in "iuf":
        set_scale(ax, "x", whole[name].dropna())
        return column.to_numpy(float)
    codes, labels = coded(column, whole[name])
    ax.set_xticks(range(len(labels)), labels)
    return codes


def _hues(whole: Any, axes: Axis) -> list[tuple[Any, Any]]:
    values = [None] if axes.hue is None else choices(whole, axes.hue, axes)
    return list(zip(values, colours(values)[0], strict=True))


def _without(part: Any, axes: Axis) -> Iterator[str]:
    """What is said of the runs that have no place on an axis of numbers."""
    for name in (axes.x, axes.y) if axes.kind == "heatmap" else (axes.x,):
        count = int(part[name].isna().sum())
        if count and part[name].dtype.kind in "iuf":
            yield f"{count} runs have no {name}"


def _legend(ax: Axes, axes: Axis) -> None:
    if axes.hue is not None and ax.lines:
        ax.legend(title=axis_label(axes.hue), title_fontsize=8)


def _draw_lines(ax: Axes, part: Any, axes: Axis, whole: Any) -> Iterator[str]:
    x: Any = pd.Series(_places(ax, part, whole, axes.x), part.index)
    failed = failed_runs(part)
    value = part[axes.y].astype(float).where(~failed)
    partial_somewhere, drawn = False, [np.empty(0)]
    for hue, colour in _hues(whole, axes):
        mine = slice(None) if axes.hue is None else has_value(part[axes.hue], hue)
        if not value[mine].notna().any():
            continue
        by_x = value[mine].groupby(x[mine])
        quartiles = np.array([by_x.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75)])
        drawn.append(quartiles.ravel())
        share = failed[mine].groupby(x[mine]).mean().to_numpy()
        partial = (share > 0) & (share < 1)
        partial_somewhere |= bool(partial.any())
        places = np.sort(x[mine].dropna().unique())
        label = None if axes.hue is None else choice_label(hue)
        draw_band(ax, places, quartiles, partial, color=colour, label=label)
    shown = np.concatenate(drawn)
    log_if_wide(ax, "y", shown[np.abs(shown) < LARGEST])
    _legend(ax, axes)
    yield from _without(part, axes)
    if value.groupby([x, *([part[axes.hue]] if axes.hue else [])]).count().max() > 1:
        yield "median, and band between the quartiles"
    if partial_somewhere:
        yield "open circle: some of the runs have diverged"


def _draw_points(ax: Axes, part: Any, axes: Axis, whole: Any) -> Iterator[str]:
    x = _places(ax, part, whole, axes.x)
    if part[axes.x].dtype.kind in "iuf":
        log_if_wide(ax, "x", part[axes.x])
    failed = failed_runs(part).to_numpy()
    y = part[axes.y].astype(float).where(~failed).to_numpy()
    for hue, colour in _hues(whole, axes):
        mine = np.full(len(part), True)
        if axes.hue is not None:
            mine = has_value(part[axes.hue], hue).to_numpy()
        label = None if axes.hue is None else choice_label(hue)
        if not np.isfinite(x[mine] * y[mine]).any():
            continue
        ax.plot(x[mine], y[mine], "o", ms=3.5, alpha=0.7, color=colour, label=label)
    log_if_wide(ax, "y", y[np.abs(y) < LARGEST])
    _legend(ax, axes)
    yield from _without(part, axes)
    if failed.any():
        yield f"{failed.sum()} runs that diverged or are invalid are not drawn"


def _draw_heatmap(ax: Axes, part: Any, axes: Axis, whole: Any) -> Iterator[str]:
    part, ticks = part.copy(), dict[str, Any]()
    for axis, name in (("x", axes.x), ("y", axes.y)):
        if whole[name].dtype.kind in "iuf" and whole[name].nunique() > 1:
            set_scale(ax, axis, whole[name])
            continue
        # text, or a single number beside null: a place each
        part[name], labels = coded(part[name], whole[name])
        ticks |= {f"{axis}ticks": range(len(labels)), f"{axis}ticklabels": labels}
    failed = failed_runs(part)
    value = part[axes.value].astype(float).where(~failed)
    by = [part[axes.x], part[axes.y]]
    plane = value.groupby(by).median().unstack()
    share = failed.groupby(by).mean().unstack().reindex_like(plane)
    found, drawn = _plane_dataset(plane, share, axes)
    levels = lambda_levels(found, drawn)
    draw_map(ax, found, found["value"], drawn, levels, around_one=False)
    ax.set(**ticks)
    mixed = (found["failed"] > 0) & (found["failed"] < 1)
    if value.groupby(by).count().max().max() > 1 or mixed.any():
        yield "medians"
    if levels:
        yield r"white: $\lambda$ (solid) and $\lambda_{KS}$ (dashed) at powers of ten"
    yield "grey: no value"
    yield from _without(part, axes)
    if (found["failed"] < 0.5).any() and (found["failed"] >= 0.5).any():
        yield "black: edge of what diverged"
    if mixed.any():
        hatch(ax, mixed, drawn)
        yield "hatched: some of the runs have diverged"


def _plane_dataset(plane: Any, share: Any, axes: Axis) -> tuple[xr.Dataset, tuple[str, str]]:
    """The value and the share of failed runs over the two axes, and how these are called.

    Two rates are called by their names, and all four of them are there.
    """
    x, y = axes.x, axes.y
    names = x.rpartition(".")[2], y.rpartition(".")[2]
    is_pair = {*names} in map(set, PAIRS)
    x, y = names if is_pair else (x, y)
    status = np.where(share.to_numpy() >= 0.5, Status.DIVERGED.label, Status.CONVERGED.label)
    found = xr.Dataset(
        {
            "value": ((x, y), plane.to_numpy(float)),
            "failed": ((x, y), share.to_numpy(float)),
            "status": ((x, y), status.astype(object)),
        },
        {x: plane.index.to_numpy(float), y: plane.columns.to_numpy(float)},
    )
    if is_pair:
        rates = named_rates(*gamma_beta(**{name: found[name] for name in names}))
        found = found.assign_coords({k: v for k, v in rates.items() if k not in names})
    return found, (x, y)


_DRAW = {"line": _draw_lines, "scatter": _draw_points, "heatmap": _draw_heatmap}


def _heading(table: Any, axes: Axis, notes: list[str]) -> Iterator[str]:
    counts = table["status"].value_counts() if "status" in table else {}
    endings = ", ".join(f"{count} {label}" for label, count in counts.items())
    names = table["data"].dropna().unique() if "data" in table else []
    what = f"{names[0]}: " if len(names) == 1 else ""
    if axes.kind == "heatmap":
        yield axis_label(axes.value)
    yield f"{what}{len(table)} runs" + (f", {endings}" if endings else "")
    if notes:
        yield "; ".join(notes)

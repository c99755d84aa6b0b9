"""Figures of a table of runs: curves with bands, points, and heat maps, over any of its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.engine import Status
from dln_momentum.errors import raise_if_any
from dln_momentum.nearest import did_you_mean
from dln_momentum.outputs.aggregation import FAILED
from dln_momentum.outputs.drawing import (
    axis_label,
    colours,
    draw_band,
    label_of,
    log_if_wide,
    set_scale,
)
from dln_momentum.outputs.plotting import LARGEST, style
from dln_momentum.outputs.sweep_maps import draw_map, hatch, lambda_levels
from dln_momentum.rates import PAIRS, gamma_beta, named_rates

KINDS = ("line", "scatter", "heatmap")
MOST_FACETS = 12
ROUNDING = 1e-9
"""Relative difference of two numbers that were computed in two ways from the same rates."""
MOST_HUES = 12
"""Values of hue; more could not be told apart."""


@dataclass(frozen=True)
class Axis:
    """What is drawn where: names of columns.

    Attributes:
        kind: one of `KINDS`.
        x, y: the axes of the figure.
        z: the colours of a heat map.
        hue: a curve or a colour for each of its values.
        col: a panel for each of its values.
    """

    kind: str
    x: str
    y: str
    z: str | None = None
    hue: str | None = None
    col: str | None = None

    @property
    def value(self) -> str:
        """The column that statistics are made of."""
        return self.z if self.kind == "heatmap" and self.z else self.y


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
    raise_if_any(_wrong(table, axes))
    table = _without_rounding(table.reset_index(drop=True), axes)
    facets = [None] if axes.col is None else _choices(table, axes.col, axes)
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
            part: Any = table if axes.col is None else table[_has(table[axes.col], value)]
            notes |= dict.fromkeys(_DRAW[axes.kind](ax, part, axes, table))
            if axes.col is not None:
                ax.set_title(f"{axis_label(axes.col)} = {_label(value)}", fontsize=8)
        for ax in grid[-1]:
            ax.set_xlabel(axis_label(axes.x))
        for ax in grid[:, 0]:
            ax.set_ylabel(axis_label(axes.y))
        figure.suptitle("\n".join(_heading(table, axes, list(notes))), fontsize=8)
    return figure


def _wrong(table: pd.DataFrame, axes: Axis) -> Iterator[str]:
    known = [str(name) for name in table]
    if axes.kind not in KINDS:
        yield f"kind = {axes.kind} must be one of {', '.join(KINDS)}, overview"
        return
    if axes.kind == "heatmap" and axes.z is None:
        yield "z is missing: a heat map shows z in colours over x and y"
    if axes.kind != "heatmap" and axes.z is not None:
        yield f"z = {axes.z} is for kind=heatmap"
    if axes.kind == "heatmap" and axes.hue is not None:
        yield f"hue = {axes.hue} is for curves and points; a heat map can have col"
    named = {key: getattr(axes, key) for key in ("x", "y", "z", "hue", "col")}
    for key, name in named.items():
        if name is None:
            continue
        if name not in known:
            yield f"{key} = {name} is no column{did_you_mean(name, known)}"
            continue
        column: Any = table[name]
        on_map = key in ("x", "y") and axes.kind == "heatmap"
        different = int(column.nunique())
        # a value of null is one of the choices: all rows in a mini-batch, for example
        if different and (key in ("hue", "col") or (on_map and different == 1)):
            different = column.nunique(dropna=False)
        if not different:
            yield f"{key} = {name} has no value in any run"
        elif name == axes.value and column.dtype.kind not in "iufb":
            yield f"{key} = {name} must be numbers"
        elif on_map and different < 2:
            yield f"{key} = {name} has one value; a heat map needs two"
        elif key == "col" and different > MOST_FACETS:
            yield f"col = {name} has {different} values; {MOST_FACETS} panels fit"
        elif key == "hue" and different > MOST_HUES:
            yield f"hue = {name} has {different} values; {MOST_HUES} can be told apart"


def _values(column: Any) -> list[Any]:
    """The different values, numbers in their order and text as it comes."""
    found = column.dropna().unique().tolist()
    return sorted(found) if column.dtype.kind in "iuf" else found


def _choices(table: Any, name: str, axes: Axis) -> list[Any]:
    """The values that tell curves or panels apart; None last, where it has a value to draw."""
    found = _values(table[name])
    null = table[name].isna() & table[[axes.x, axes.value]].notna().all(axis=1)
    return [*found, None] if null.any() else found


def _has(column: Any, value: Any) -> Any:
    return column.isna() if value is None else column == value


def _label(value: Any) -> str:
    return "none" if value is None else label_of(value)


def _without_rounding(table: pd.DataFrame, axes: Axis) -> pd.DataFrame:
    """The table, in whose axes numbers that differ by rounding are one: lambda of two pairs."""
    names = {axes.x, axes.hue, axes.col} | ({axes.y} if axes.kind == "heatmap" else set())
    if axes.kind == "scatter":
        names -= {axes.x}
    one = {}
    for name in names - {None}:
        column: Any = table[name]
        if column.dtype.kind != "f":
            continue
        values = np.sort(column.dropna().unique())
        apart = np.abs(np.diff(values)) > ROUNDING * np.abs(values[1:])
        groups = np.split(values, np.flatnonzero(apart) + 1)
        shortest = {
            value: min(group, key=lambda number: len(repr(float(number))))
            for group in groups
            for value in group
        }
        one[name] = column.map(shortest)
    return table.assign(**one)


def _failed(table: Any) -> Any:
    """The runs that have no value."""
    if "status" not in table:
        return pd.Series(False, table.index)
    return table["status"].isin(FAILED)


def _places(ax: Axes, table: Any, whole: Any, name: str) -> np.ndarray:
    """The values of x as numbers; text gets a place each, and the axis its labels."""
    column = table[name]
    if column.dtype.kind in "iuf":
        set_scale(ax, "x", whole[name].dropna())
        return column.to_numpy(float)
    codes, labels = _coded(column, whole[name])
    ax.set_xticks(range(len(labels)), labels)
    return codes


def _coded(column: Any, whole: Any) -> tuple[np.ndarray, list[str]]:
    """A place for each value of a column, and the labels of all places."""
    values = _values(whole)
    codes = column.map({value: place for place, value in enumerate(values)})
    if not whole.isna().any():
        return codes.to_numpy(float), [label_of(value) for value in values]
    return codes.fillna(len(values)).to_numpy(float), [*map(label_of, values), "none"]


def _hues(whole: Any, axes: Axis) -> list[tuple[Any, Any]]:
    values = [None] if axes.hue is None else _choices(whole, axes.hue, axes)
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
    failed = _failed(part)
    value = part[axes.y].astype(float).where(~failed)
    partial_somewhere, drawn = False, [np.empty(0)]
    for hue, colour in _hues(whole, axes):
        mine = slice(None) if axes.hue is None else _has(part[axes.hue], hue)
        if not value[mine].notna().any():
            continue
        by_x = value[mine].groupby(x[mine])
        quartiles = np.array([by_x.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75)])
        drawn.append(quartiles.ravel())
        share = failed[mine].groupby(x[mine]).mean().to_numpy()
        partial = (share > 0) & (share < 1)
        partial_somewhere |= bool(partial.any())
        places = np.sort(x[mine].dropna().unique())
        label = None if axes.hue is None else _label(hue)
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
    failed = _failed(part).to_numpy()
    y = part[axes.y].astype(float).where(~failed).to_numpy()
    for hue, colour in _hues(whole, axes):
        mine = np.full(len(part), True)
        if axes.hue is not None:
            mine = _has(part[axes.hue], hue).to_numpy()
        label = None if axes.hue is None else _label(hue)
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
        part[name], labels = _coded(part[name], whole[name])
        ticks |= {f"{axis}ticks": range(len(labels)), f"{axis}ticklabels": labels}
    failed = _failed(part)
    value = part[axes.value].astype(float).where(~failed)
    by = [part[axes.x], part[axes.y]]
    plane = value.groupby(by).median().unstack()
    share = failed.groupby(by).mean().unstack().reindex_like(plane)
    found, drawn = _plane_dataset(plane, share, axes)
    draw_map(ax, found, found["value"], drawn, around_one=False)
    ax.set(**ticks)
    mixed = (found["failed"] > 0) & (found["failed"] < 1)
    if value.groupby(by).count().max().max() > 1 or mixed.any():
        yield "medians"
    if lambda_levels(found, drawn):
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

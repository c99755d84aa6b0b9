"""Columns of a table as axes of a figure: what may be drawn, and the values to tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dln_momentum.nearest import did_you_mean
from dln_momentum.outputs.aggregation import FAILED
from dln_momentum.outputs.drawing import label_of

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


def wrong_axes(table: pd.DataFrame, axes: Axis) -> Iterator[str]:
    """Why these columns cannot be drawn like this."""
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


def choices(table: Any, name: str, axes: Axis) -> list[Any]:
    """The values that tell curves or panels apart; None last, where it has a value to draw."""
    found = _values(table[name])
    null = table[name].isna() & table[[axes.x, axes.value]].notna().all(axis=1)
    return [*found, None] if null.any() else found


def has_value(column: Any, value: Any) -> Any:
    """Where a column has one of its `choices`."""
    return column.isna() if value is None else column == value


def choice_label(value: Any) -> str:
    """One of the `choices` as a label."""
    return "none" if value is None else label_of(value)


def without_rounding(table: pd.DataFrame, axes: Axis) -> pd.DataFrame:
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


def failed_runs(table: Any) -> Any:
    """The runs that have no value."""
    if "status" not in table:
        return pd.Series(False, table.index)
    return table["status"].isin(FAILED)


def coded(column: Any, whole: Any) -> tuple[np.ndarray, list[str]]:
    """A place for each value of a column, and the labels of all places."""
    values = _values(whole)
    codes = column.map({value: place for place, value in enumerate(values)})
    if not whole.isna().any():
        return codes.to_numpy(float), [label_of(value) for value in values]
    return codes.fillna(len(values)).to_numpy(float), [*map(label_of, values), "none"]

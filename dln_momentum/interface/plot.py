"""A figure of anything that was run: over keys and quantities, or the overview of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.collect import Collection, find
from dln_momentum.interface.run import Run
from dln_momentum.outputs import plotting, sweep_figure
from dln_momentum.outputs.found import UnreadableError, is_setting
from dln_momentum.outputs.sweep_files import rows_of_dataset
from dln_momentum.outputs.table_axes import Axis
from dln_momentum.outputs.table_figure import table_figure
from dln_momentum.outputs.tables import read_table
from dln_momentum.rates import RATES

MOST_REASONS = 5
"""Files and folders without a run that a message names."""

Source = str | Path | pd.DataFrame | xr.Dataset | Run


def plot(
    *source: Source,
    x: str | None = None,
    y: str | None = None,
    z: str | None = None,
    hue: str | None = None,
    col: str | None = None,
    kind: str | None = None,
) -> Figure:
    r"""Draw runs over keys of their configs and quantities, or the overview of one run.

    Over everything that is not named the figure shows medians, and curves a band between the
    quartiles. Runs that diverged have no value; places where that is some of the runs are marked.
    Scales are logarithmic where the values are spaced by factors, and heat maps over two of gamma,
    beta, lam and eps have level lines of lambda.

    Args:
        *source: folders and files ``results.nc`` as for `dln_momentum.collect`; or one table, as a
            data frame or a file ``.csv`` or ``.parquet``; or one labelled dataset of `sweep`; or
            the runs of `train`, whose columns are their summary and how they ended.
        x, y: names of columns: quantities of docs/quantities.md, or dotted keys of the config.
        z: the quantity that a heat map shows in colours.
        hue: a curve, or a colour, for each of its values.
        col: a panel for each of its values.
        kind: line, scatter or heatmap; or overview, of one run, flow or sweep. By default heatmap
            with ``z``, overview without any name, and else line.

    Returns:
        The figure; ``figure.savefig("figure.pdf")`` keeps it.

    Raises:
        InputError: for names that are not there, with the nearest, and what cannot be drawn.

    >>> import dln_momentum as dln
    >>> ds = dln.sweep(dln.sparse(n=5, d=8, s=1), gamma=[0.1, 0.2], beta=[0.0, 0.5], max_steps=99)
    >>> figure = dln.plot(ds, x="gamma", y="recovery_error", hue="beta")
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['step size $\\gamma$']
    >>> dln.plot(ds, x="gama", y="beta", z="l1_norm")
    Traceback (most recent call last):
    dln_momentum.errors.InputError: x = gama is no column (did you mean gamma?)
    """
    named = {"x": x, "y": y, "z": z, "hue": hue, "col": col}
    raise_if_any(
        f"{key} = {name!r} must be the name of a column"
        for key, name in named.items()
        if not isinstance(name, str | None)
    )
    kind = kind or ("heatmap" if z else "line" if any(named.values()) else "overview")
    if kind == "overview":
        given = [f"{key} = {name} is not for kind=overview" for key, name in named.items() if name]
        raise_if_any(given)
        return overview_of(*source)
    raise_if_any(_along_steps(source, named))
    table, settings = _table(source)
    if x is None or y is None:
        missing = " and ".join(key for key in ("x", "y") if named[key] is None)
        varied = ", ".join(name for name in settings if is_setting(name)) or "nothing"
        raise InputError(f"{missing} missing: name columns; what varies here: {varied}")
    return table_figure(table, Axis(kind, x, y, z, hue, col))


def _along_steps(source: tuple[Source, ...], named: Mapping[str, str | None]) -> Iterator[str]:
    """Names that are there, with a value at every step: a figure is over runs."""
    results = source[0] if len(source) == 1 else None
    if not isinstance(results, xr.Dataset):
        return
    for key, name in named.items():
        if name in results.variables and "step" in results[name].dims:
            yield (
                f"{key} = {name} has a value at every step, and a figure one for each run: give "
                f"the runs of dln.train themselves, or draw the path by xarray, as ds.{name}.plot()"
            )


def overview_of(*source: Source) -> Figure:
    """The overview of one run, flow or sweep.

    Raises:
        InputError: for anything else.
    """
    if len(source) == 1 and isinstance(source[0], str | Path):
        place = Path(source[0])
        if (place / "history.nc").is_file() and (place / "summary.json").is_file():
            try:
                summary = json.loads((place / "summary.json").read_text())
                history = xr.load_dataset(place / "history.nc", engine="h5netcdf")
                return plotting.overview(history, summary)
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{place}: there is no overview to draw: {error}") from error
    if len(source) == 1 and isinstance(source[0], xr.Dataset):
        results = source[0]
    else:
        paths = [place for place in source if isinstance(place, str | Path)]
        results = xr.Dataset()
        if len(paths) == len(source):
            found = find(*paths)
            raise_if_any(_without_runs([Path(path) for path in paths], found))
            results = found.dataset()
    if "status" not in results or not results["status"].dims or "run" in results.dims:
        raise InputError("kind=overview is of one run, flow or sweep; give x=NAME and y=NAME")
    figure = sweep_figure.overview(results)
    if figure is None:
        raise InputError("kind=overview: a sweep of one point has no figure")
    return figure


def _table(source: tuple[Source, ...]) -> tuple[pd.DataFrame, list[str]]:
    """The runs of all sources, and the names of the columns that are settings."""
    first = source[0] if len(source) == 1 else None
    if isinstance(first, pd.DataFrame):
        return first, [str(name) for name in first if "." in str(name)]
    if isinstance(first, Run):
        values = {**first.summary, "status": first.status}
        ends = xr.Dataset({name: (first.dims, value) for name, value in values.items()})
        table = pd.DataFrame(rows_of_dataset(ends).values)
        return table, [name for name in RATES if np.unique(values[name]).size > 1]
    if isinstance(first, xr.Dataset):
        try:
            rows = rows_of_dataset(first)
        except UnreadableError as error:
            raise InputError(f"source: {error}") from error
        table = pd.DataFrame(rows.values)
        return table, list(rows.config)
    paths = [Path(place) for place in source if isinstance(place, str | Path)]
    if len(paths) < len(source) or not paths:
        raise InputError("source must be folders and files, or one table, dataset or Run")
    if len(paths) == 1 and paths[0].suffix in (".csv", ".parquet") and paths[0].is_file():
        table = read_table(paths[0])
        return table, [str(name) for name in table if "." in str(name)]
    found = find(*paths)
    raise_if_any(_without_runs(paths, found))
    return found.table, found.settings


def _without_runs(paths: list[Path], found: Collection) -> Iterator[str]:
    """Files that were named and cannot be read; where there is no run at all, why there is none."""
    named = {path.as_posix() for path in paths if path.is_file()}
    for path, reason in found.skipped[:MOST_REASONS]:
        if not len(found.table) or path in named:
            yield f"source = {path}: {reason}"
    if not len(found.table) and not found.skipped:
        yield f"source = {', '.join(map(str, paths))}: there is no run, flow or sweep to draw"

"""TensorBoard's pages for a sweep: quantiles over its runs, and a row of HPARAMS for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dln_momentum.outputs import events
from dln_momentum.outputs.axis_keys import key_of
from dln_momentum.outputs.dashboard import (
    FILE,
    as_shown,
    at,
    layout,
    log_time,
    logged,
    page,
    row_name,
    write_events,
)
from dln_momentum.outputs.dashboard_columns import KEYS, RESULTS, SETTINGS, row, settings_of
from dln_momentum.outputs.files import read_yaml
from dln_momentum.outputs.quantities import PATH, QUANTITIES
from dln_momentum.outputs.results import NOT_RUN
from dln_momentum.rates import RATES

if TYPE_CHECKING:
    import xarray as xr

QUANTILES = {"median": 0.5, "quantile_0.1": 0.1, "quantile_0.9": 0.9}
"""Curves over the runs, each a run of TensorBoard, so that a card shows them together."""

DISTRIBUTIONS = (
    "recovery_error", "train_loss", "l1_norm", "balancedness_l1", "kkt_residual",
    "distance_to_minimizer", "steps",
)  # fmt: skip
"""Results that have a histogram over the runs."""

DERIVED = (*RATES, "lam_ks", *SETTINGS)
"""Coordinates that need not be axes."""

MOST_BESIDE = 32
"""Rows that stand below the sweep: TensorBoard unticks all runs of a logdir with more than 40."""
MOST = 1000
"""Rows at all; its table takes seconds a page beyond."""


def write(
    directory: Path,
    results: xr.Dataset,
    summary: Mapping[str, Any],
    config: str,
    *,
    root: Path | None = None,
) -> Path | None:
    """Write the dashboard of a finished sweep.

    ``directory`` gets histograms of the results and the pages of text, its folders ``median``,
    ``quantile_0.1`` and ``quantile_0.9`` the curves, and ``runs`` a folder a run with its row of
    HPARAMS. More than `MOST_BESIDE` rows go into `rows_apart` instead, a logdir of their own.

    Args:
        directory: of the sweep.
        results: as ``results.nc`` has it.
        summary: as ``summary.json`` has it.
        config: as YAML text.
        root: the folder of all runs, which ``tensorboard --logdir`` is given.

    Returns:
        The folder of the rows; None where there are more than `MOST`.
    """
    axes = results["status"].dims
    rows = _results(results, axes)
    eps = _time_step(results)
    last = at(float(results["steps"].max()) * eps)
    found = [(0, page(summary, config))]
    for name in DISTRIBUTIONS:
        if name in rows:
            tag, shown = as_shown(name, rows[name])
            found.append((last, events.histogram(f"runs/{tag.split('/')[-1]}", shown)))
    if "step" in results.coords:
        for name, curves in _curves(results, axes, eps).items():
            write_events(directory / name / FILE, [*curves, (0, layout())])
    write_events(directory / FILE, found)
    count = results["status"].size
    if count > MOST:
        return None
    folder = directory / "runs"
    if count > MOST_BESIDE:
        folder = rows_apart(directory, root)
    shared = settings_of(summary, read_yaml(config))
    for name, given, ends in _rows(results, axes, rows):
        end = at(ends["steps"] * eps)
        values = events.scalars(dict(logged(ends)))
        place = folder / name
        settings = _columns(given, shared)
        write_events(place / FILE, [(end, values), (0, row(settings, row_name(place)))])
    return folder


def rows_apart(directory: Path, root: Path | None = None) -> Path:
    """Where the rows of a large sweep go: its place below the root, with ``-rows`` added to that.

    >>> rows_apart(Path("outputs/sweep/a"), Path("outputs")), rows_apart(Path("a/b"))
    (PosixPath('outputs-rows/sweep/a'), PosixPath('a/b-rows'))
    """
    if root is not None and directory.is_relative_to(root):
        return root.with_name(f"{root.name}-rows") / directory.relative_to(root)
    return directory.with_name(f"{directory.name}-rows")


def _results(results: xr.Dataset, axes: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """The scalar results of the runs, [R] each."""
    found = {name: results[name] for name in RESULTS if name in results}
    return {
        name: value.to_numpy().reshape(-1) for name, value in found.items() if value.dims == axes
    }


def _time_step(results: xr.Dataset) -> float:
    """eps where all runs share it, so that the axis is t = k eps; else 1, and it is k."""
    eps = np.unique(results["eps"].to_numpy())
    return float(eps[0]) if len(eps) == 1 and eps[0] > 0 else 1.0


def _curves(
    results: xr.Dataset, axes: tuple[Any, ...], eps: float
) -> dict[str, list[tuple[int, bytes]]]:
    """The quantiles over the runs of every recorded scalar, at times in steps of eps."""
    shown: dict[str, dict[str, np.ndarray]] = {name: {} for name in QUANTILES}
    for name, value in results.data_vars.items():
        short = str(name).removesuffix(PATH)
        if str(name) == short or value.dims != ("step", *axes) or not QUANTITIES[short].group:
            continue
        table = value.to_numpy().reshape(value.sizes["step"], -1)
        kept = np.where(np.isfinite(table), table, np.nan)
        some = ~np.isnan(kept).all(1)
        columns = np.full((len(QUANTILES), len(kept)), np.nan)
        # a value of one of the runs: that of the logarithm is the logarithm of that
        columns[:, some] = np.nanquantile(
            kept[some], list(QUANTILES.values()), axis=1, method="nearest"
        )
        for quantile, column in zip(QUANTILES, columns, strict=True):
            shown[quantile].update([as_shown(short, column)])
    steps = log_time(results["step"].to_numpy() * eps).tolist()
    rows = {n: events.scalar_rows(of) if of else [b""] * len(steps) for n, of in shown.items()}
    return {name: list(zip(steps, of, strict=True)) for name, of in rows.items()}


def _rows(
    results: xr.Dataset,
    axes: tuple[Any, ...],
    ends: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    """The name of each run, its settings and its results; a run of another shard has none."""
    over = results["status"]
    given = {
        str(name): _at_points(results[name], over)
        for name in results.variables
        if (name in results.coords or name in SETTINGS) and set(results[name].dims) <= set(axes)
    }
    # a dimension of several settings is only numbered
    named = [name for name in given if name in results.coords and results[name].dims]
    named = [name for name in named if name in axes or name not in DERIVED]
    taken: Counter[str] = Counter()
    for run, status in enumerate(given["status"]):
        if status == NOT_RUN:
            continue
        settings = {name: column[run] for name, column in given.items()}
        name = "-".join(f"{axis}_{_short(settings[axis])}" for axis in named) or "run"
        taken[name] += 1
        if taken[name] > 1:
            name += f"-{taken[name]}"
        yield name, settings, {key: float(column[run]) for key, column in ends.items()}


def _at_points(value: xr.DataArray, over: xr.DataArray) -> list[Any]:
    return value.broadcast_like(over).transpose(*over.dims).to_numpy().reshape(-1).tolist()


def _short(value: Any) -> str:
    """A setting as a part of the name of a folder."""
    return f"{value:g}" if isinstance(value, int | float) else re.sub(r"[^\w.+-]+", "_", str(value))


def _columns(given: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one run under the columns that a run alone has them in.

    What is swept stands in the config with a value that the run does not have.

    >>> _columns({"gamma": 0.1, "mu": 2.0, "engine_path_sums": "direct"}, {"data.mu": 1.0, "n": 5})
    {'data.mu': 2.0, 'n': 5, 'gamma': 0.1, 'engine.path_sums': 'direct'}
    """
    found = dict(shared)
    for name, value in given.items():
        column = name if name in SETTINGS else key_of(name)
        if column in (*SETTINGS, *KEYS, *shared):
            found[column] = value
    return found

"""The end of a sweep on the terminal: endings, quantiles, and a small grid run by run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from dln_momentum.engine import Status
from dln_momentum.outputs.summary import BY_CONSTRUCTION

LISTED_RUNS = 30
"""A grid of at most this many points is shown run by run."""

QUANTITIES = {
    "steps_to_tol": "steps to tol",
    "recovery_error": "recovery error",
    "test_error": "test error",
    "l1_norm": "||theta||_1",
    "balancedness_ratio": "Delta_inf/Delta_0",
    "sign_changes": "sign changes",
    "distance_to_minimizer": "gap to argmin D",
    "distance_to_gradient_flow_minimizer": "gap to GF limit",
    "kkt_residual": "KKT residual",
}
COLUMNS = {
    "steps": "steps",
    "train_loss": "loss",
    "recovery_error": "recovery",
    "balancedness_ratio": "Delta\nratio",
    "sign_changes": "signs",
}


def print_report(results: xr.Dataset, summary: Mapping[str, Any], directory: Path) -> None:
    """Print the tables of one sweep, and where its files are."""
    console = Console()
    results = with_ratio(results)
    # a table's own title would wrap at the table's width
    console.print(_heading(summary), style="italic", highlight=False)
    console.print(_endings(results, summary))
    if judged(results)[0].any():
        console.print(_quantiles(results))
    if results["status"].size <= LISTED_RUNS and results["status"].ndim:
        console.print(_runs(console, results))
    console.print(f"results in {directory}", soft_wrap=True, highlight=False)


def with_ratio(results: xr.Dataset) -> xr.Dataset:
    """The results with ||Delta_inf||_1 / ||Delta_0||_1 beside the others."""
    ratio = results["balancedness_l1"] / results["initial_balancedness_l1"]
    return results.assign(balancedness_ratio=ratio)


def judged(results: xr.Dataset) -> tuple[xr.DataArray, str]:
    """The runs whose numbers mean something: the converged ones, or all that did not blow up."""
    status = results["status"]
    converged = status == Status.CONVERGED
    if converged.any():
        return converged, "runs that converged"
    return ~status.isin([Status.DIVERGED, Status.INVALID]), "runs that did not diverge"


def _heading(summary: Mapping[str, Any]) -> str:
    sizes = " x ".join(f"{name} ({size})" for name, size in summary["axes"].items())
    counted = f"{summary['runs']} runs over {sizes}" if sizes else "one run"
    return (
        f"{summary['data']}: {counted}\n"
        f"trained in {summary['seconds_training']:.1f} s, "
        f"{summary['run_steps_per_second']:.3g} run-steps a second"
    )


def _endings(results: xr.Dataset, summary: Mapping[str, Any]) -> Table:
    table = Table()
    table.add_column("status")
    for column in ("runs", "share", "steps, median"):
        table.add_column(column, justify="right")
    for label, count in summary["status"].items():
        steps = results["steps"].where(results["status_label"] == label)
        shown = "-" if steps.isnull().all() else number(float(steps.median()))
        table.add_row(label, str(count), f"{count / results['status'].size:.1%}", shown)
    return table


def _quantiles(results: xr.Dataset) -> Table:
    among, name = judged(results)
    table = Table(title=f"{name}: {int(among.sum())}", title_justify="left")
    table.add_column("quantity", no_wrap=True)
    for column in ("least", "25 %", "median", "75 %", "greatest"):
        table.add_column(column, justify="right")
    for key, label in QUANTITIES.items():
        values = results[key].where(among).to_numpy()
        finite = values[np.isfinite(values)]
        if finite.size:
            quantiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
            table.add_row(label, *map(number, quantiles.tolist()))
        elif results.attrs["path_sums"] == "gradient_sum" and key in BY_CONSTRUCTION:
            table.add_row(label, *[""] * 4, "by construction")
    return table


def _runs(console: Console, results: xr.Dataset) -> Table:
    """Run by run, with as many columns as the terminal has room for: half a number misleads."""
    names = [name for name in COLUMNS if np.isfinite(results[name]).any()]
    unbounded = console.options.update_width(10 * console.width)
    while True:
        table = _run_table(results, names)
        if not names or console.measure(table, options=unbounded).maximum <= console.width:
            return table
        names.pop()


def _run_table(results: xr.Dataset, names: list[str]) -> Table:
    dims = [str(name) for name in results["status"].dims]
    table = Table(title="run by run", title_justify="left")
    for column in (*dims, "status", *(COLUMNS[name] for name in names)):
        table.add_column(column, justify="left" if column == "status" else "right")
    for row in _rows(results, dims, names):
        table.add_row(*row)
    return table


def _rows(results: xr.Dataset, dims: list[str], names: list[str]) -> Iterator[list[str]]:
    for place in np.ndindex(results["status"].shape):
        run = results.isel(dict(zip(dims, place, strict=True)))
        numbers = [number(float(run[name])) for name in names]
        yield [
            *(number(run[dim].item()) for dim in dims),
            str(run["status_label"].item()),
            *numbers,
        ]


def number(value: float) -> str:
    """A number as a table shows it; a dash where there is none.

    >>> [number(x) for x in (123456789, 12345.6, 2.0, 0.012345, 5e30, float("nan"))]
    ['123456789', '12346', '2', '0.0123', '5e+30', '-']
    """
    if isinstance(value, int):
        return str(value)
    if not np.isfinite(value):
        return "-"
    whole = abs(value) < 1e6 and (value % 1 == 0 or abs(value) >= 1e3)
    return f"{value:.0f}" if whole else f"{value:.3g}"

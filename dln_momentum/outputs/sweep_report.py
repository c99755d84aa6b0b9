"""The end of a sweep on the terminal: endings, quantiles, and a small grid run by run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from dln_momentum.engine import Status
from dln_momentum.outputs.quantities import NOT_RUN
from dln_momentum.outputs.summary import BY_CONSTRUCTION
from dln_momentum.outputs.terminal import number, print_tables, table_of

LISTED_RUNS = 30
"""A grid of at most this many points is shown run by run."""

QUANTITIES = {
    "steps_to_tol": "steps to tol",
    "recovery_error": "recovery error",
    "relative_recovery_error": "relative recovery",
    "test_error": "test error",
    "l1_norm": "||theta||_1",
    "l1_excess": "l1 excess",
    "balancedness_ratio": "Delta_inf/Delta_0",
    "sign_changes": "sign changes",
    "distance_to_minimizer": "dist. to argmin D",
    "distance_to_gradient_flow_minimizer": "dist. to GF limit",
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
    tables = [_endings(results, summary)]
    if judged(results)[0].any():
        tables.append(_quantiles(results))
    if results["status"].size <= LISTED_RUNS and results["status"].ndim:
        tables.append(_runs(console, results))
    print_tables(console, _heading(summary), tables, directory)


def judged(results: xr.Dataset) -> tuple[xr.DataArray, str]:
    """The runs whose numbers mean something: the converged ones, or all that did not blow up."""
    status = results["status"]
    converged = status == Status.CONVERGED.label
    if converged.any():
        return converged, "runs that converged"
    none = [Status.DIVERGED.label, Status.INVALID.label, NOT_RUN]
    return ~status.isin(none), "runs that did not diverge"


def _heading(summary: Mapping[str, Any]) -> str:
    sizes = " x ".join(f"{name} ({size})" for name, size in summary["axes"].items())
    of = "" if summary["runs"] == summary["grid_size"] else f" of {summary['grid_size']}"
    counted = f"{summary['runs']}{of} runs over {sizes}" if sizes else "one run"
    return (
        f"{summary['data']}: {counted}\n"
        f"trained in {summary['seconds_training']:.1f} s, "
        f"{summary['run_steps_per_second']:.3g} run-steps a second"
    )


def _endings(results: xr.Dataset, summary: Mapping[str, Any]) -> Table:
    table = table_of("status", "runs", "share", "steps, median")
    for label, count in summary["endings"].items():
        steps = results["steps"].where(results["status"] == label).median()
        share = f"{count / results['status'].size:.1%}"
        table.add_row(label, str(count), share, number(float(steps), 3))
    return table


def _quantiles(results: xr.Dataset) -> Table:
    among, name = judged(results)
    title = f"{name}: {int(among.sum())}"
    table = table_of("quantity", "least", "25 %", "median", "75 %", "greatest", title=title)
    for key, label in QUANTITIES.items():
        values = results[key].where(among & np.isfinite(results[key]))
        if values.notnull().any():
            quantiles = values.quantile([0, 0.25, 0.5, 0.75, 1]).to_numpy().tolist()
            table.add_row(label, *(number(value, 3) for value in quantiles))
        elif results.attrs.get("path_sums") == "gradient_sum" and key in BY_CONSTRUCTION:
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
    columns = [*dims, "status", *(COLUMNS[name] for name in names)]
    table = table_of(*columns, title="run by run", left=("status",))
    runs = results[["status", *names]].stack(run=dims, create_index=False)
    for run in range(runs.sizes["run"]):
        row = [runs[name][run].item() for name in (*dims, "status", *names)]
        table.add_row(*(cell if isinstance(cell, str) else number(cell, 3) for cell in row))
    return table

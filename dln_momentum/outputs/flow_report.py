"""The end of many flows, and of a comparison with a run, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from dln_momentum.outputs.terminal import number, print_tables, table_of, wide_console

LISTED = 30
"""More flows than this are shown by some of them, evenly spaced."""

COLUMNS = {
    "time": "t at the end",
    "train_loss": "loss",
    "recovery_error": "recovery",
    "l1_norm": "||theta||_1",
    "balancedness_ratio": "Delta ratio",
    "sign_changes": "signs",
    "distance_to_gradient_flow_minimizer": "dist. to GF limit",
}


def print_flows_report(results: xr.Dataset, summary: Mapping[str, Any], directory: Path) -> None:
    """Print a line for each flow, or for some of many, and where the files are."""
    last = results.isel(time=-1) if "time" in results.dims else results
    every = -(-summary["runs"] // LISTED)
    table = table_of("lambda", "status", *COLUMNS.values(), left=("status",))
    for place in range(0, summary["runs"], every):
        one = last.isel(lam=place)
        cells = (number(one[name].item()) for name in COLUMNS)
        table.add_row(number(one["lam"].item()), str(one["status"].item()), *cells)
    counts = ", ".join(f"{count} {label}" for label, count in summary["endings"].items())
    title = f"{summary['data']}: {summary['runs']} flows in {summary['seconds']:.1f} s, {counts}"
    if every > 1:
        title += f"; one in {every} is listed"
    print_tables(wide_console(), title, [table], directory)


def print_comparison(summary: Mapping[str, Any], directory: Path) -> None:
    """Print the distances of a run to its two flows, and where the files are."""
    s = summary
    title = (
        f"{s['data']}: gamma = {s['gamma']:g}, beta = {s['beta']:g}, eps = {s['eps']:.4g}, "
        f"{s['steps']} steps against flows to t = {s['time']:.6g} in {s['seconds']:.1f} s"
    )
    table = table_of("flow", "lambda", "largest ||theta_k - theta(t_k)||", "at the last step")
    for label, lam, name in (
        ("MGF(lambda), t_k = k eps", "lam", "distance_to_flow"),
        ("MGF(lambda_KS), t_k = (k + 1/2) eps from rest", "lam_ks", "distance_to_flow_ks"),
    ):
        table.add_row(label, number(s[lam]), number(s[f"max_{name}"]), number(s[name]))
    print_tables(wide_console(), title, [table], directory)

"""The end of a run on the terminal: each quantity, what the theory predicts, what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = tuple[str, str, str]


def print_report(summary: Mapping[str, Any], directory: Path) -> None:
    """Print the table of one run, and where its files are."""
    console = Console()
    table = Table(title=_title(summary), title_justify="left")
    table.add_column("quantity")
    table.add_column("prediction", justify="right")
    table.add_column("measured", justify="right")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    console.print(f"results in {directory}", soft_wrap=True, highlight=False)


def _title(s: Mapping[str, Any]) -> str:
    return (
        f"{s['data']}: {s['status']} after {s['steps']} steps in {s['seconds']:.1f} s\n"
        f"gamma = {s['gamma']:g}, beta = {s['beta']:g}: lambda = {s['lambda']:.4g}, "
        f"eps = {s['epsilon']:.4g}, lambda_KS = {s['lambda_ks']:.4g}"
    )


def _rows(s: Mapping[str, Any]) -> Iterator[Row]:
    yield "training loss", "0", _number(s["train_loss"])
    yield from _balancedness_rows(s)
    yield from _minimiser_rows(s)
    yield "||theta - theta*||", "", _number(s["recovery_error"])
    yield "test error", "", _number(s["test_error"])
    yield "||theta||_1", "", _number(s["l1_norm"])


def _balancedness_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    below = s["small_lambda_threshold"] is not None and s["lambda"] < s["small_lambda_threshold"]
    threshold = _number(s["small_lambda_threshold"])
    signs = f"0 (lambda < {threshold})" if below else f"any (lambda >= {threshold})"
    yield "sign changes of w_+-", signs, _number(s["sign_changes"])
    shrinks = "< 1" if s["sign_changes"] == 0 else "any"
    ratio = _ratio(s["balancedness_l1"], s["initial_balancedness_l1"])
    yield "||Delta_inf||_1 / ||Delta_0||_1", shrinks, _number(ratio)
    direct = s["path_sums"] == "direct"
    source = "0" if direct else "0 (an identity: S is not summed directly)"
    yield (
        "Delta against Delta_0 exp(-(S_+ + S_-))",
        source,
        _number(s["path_sum_balancedness_error"]),
    )
    yield "  with the boundary terms", source, _number(s["path_identity_error"])
    yield "u^2 - v^2 against its log-free sum", "0", _number(s["log_free_error"])


def _minimiser_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    zero = "0" if s["status"] == "converged" else "0 once converged"
    yield "KKT residual of theta_K", "0", _number(s["kkt_residual"])
    yield "distance to argmin D(., theta~_0), Delta_inf", zero, _number(s["distance_to_minimizer"])
    small = "small if theta~_0 is"
    yield (
        "distance to argmin psi, Delta_inf",
        small,
        _number(s["distance_to_unperturbed_minimizer"]),
    )
    yield "ln ||theta~_0||", "", _number(s["log_perturbed_init_norm"])
    flow = s["distance_to_gradient_flow_minimizer"]
    yield "distance to the gradient-flow limit", "0 as lambda -> 0", _number(flow)


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.4g}"

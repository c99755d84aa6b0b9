"""The end of a run on the terminal: each quantity, what the theory predicts, what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dln_momentum.outputs.divergence import why_diverged
from dln_momentum.outputs.quantities import QUANTITIES
from dln_momentum.outputs.terminal import number, print_tables, table_of

if TYPE_CHECKING:
    import xarray as xr

Row = tuple[str, str, str]


def print_report(
    summary: Mapping[str, Any], directory: Path, history: xr.Dataset | None = None
) -> None:
    """Print the table of one run of the optimizer, and where its files are.

    Of the history it shows what callbacks beside the default ones have recorded.
    """
    s = summary
    title = (
        f"{s['data']}: {s['status']} after {s['steps']} steps in {s['seconds']:.1f} s\n"
        f"gamma = {s['gamma']:g}, beta = {s['beta']:g}: lambda = {s['lam']:.4g}, "
        f"eps = {s['eps']:.4g}, lambda_KS = {s['lam_ks']:.4g}"
        + (f"\n{label}" if (label := method_label(s)) else "")
        + (f"\n{why_diverged(s)}" if s["status"] == "diverged" else "")
    )
    _print(title, [*run_rows(s), *_recorded_rows(history)], directory)


def run_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    """What the theory predicts of one run, and what was measured, by its summary."""
    yield "training loss", "0", number(s["train_loss"])
    yield from _balancedness_rows(s)
    yield from _path_sum_rows(s)
    yield from _minimiser_rows(s, "K")
    yield from _recovery_rows(s, "step")


def print_flow_report(summary: Mapping[str, Any], directory: Path) -> None:
    """Print the table of one flow, and where its files are."""
    s = summary
    kind = "gradient flow" if s["lam"] == 0 else f"momentum flow, lambda = {s['lam']:.4g}"
    if s["friction"] != "1":
        kind += f", friction {s['friction']}"
    title = (
        f"{s['data']}: {s['status']} at t = {s['time']:.6g} in {s['seconds']:.1f} s\n"
        f"{kind}; {s['solver_steps']} steps of {s['solver']}"
        + (f"\n{s['message']}" if s["message"] else "")
    )
    rows = [
        ("training loss", "0", number(s["train_loss"])),
        *_energy_rows(s),
        *_balancedness_rows(s),
        *_path_integral_rows(s),
        *_minimiser_rows(s, "t"),
        (
            "distance to GF from Delta_inf",
            "small if theta~_0 is",
            number(s["distance_to_effective_initialisation_limit"]),
        ),
        *_recovery_rows(s, "time"),
    ]
    _print(title, rows, directory)


def method_label(s: Mapping[str, Any], *, loss: bool = True) -> str:
    """What a run has beside gamma and beta; empty for the poster's method.

    >>> method_label({"method": "nesterov", "schedule": "cosine", "depth": 2.0})
    'nesterov, schedule cosine'
    """
    parts = [
        f"{label}{s[key]:g}" if isinstance(s[key], float) else f"{label}{s[key]}"
        for key, label, usual in (
            ("method", "", "heavy_ball"),
            ("schedule", "schedule ", "constant"),
            ("weight_decay", "weight decay ", 0),
            ("dampening", "dampening ", 0),
            ("depth", "depth ", 2),
            ("loss_name", "loss ", "squared"),
        )
        if s.get(key, usual) != usual and (loss or key != "loss_name")
    ]
    if s.get("gamma_u") != s.get("gamma_v"):
        parts.append(f"gamma_u {s['gamma_u']:g}, gamma_v {s['gamma_v']:g}")
    return ", ".join(parts)


def _print(title: str, rows: Iterable[Row], directory: Path) -> None:
    from rich.console import Console

    table = table_of("quantity", "prediction", "measured")
    for row in rows:
        table.add_row(*row)
    print_tables(Console(), title, [table], directory)


def _energy_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    yield "energy F + lambda/2 ||w'||^2", "0", number(s["energy"])
    # E_0, which is F(w_0) from rest
    bound = f"<= {number(s['initial_energy'])}"
    spent = "" if s["friction"] != "1" else ", int ||w'||^2"
    yield f"energy spent{spent}", bound, number(s["dissipated"])
    yield "  against E_0 - energy, relative", "0", number(s["energy_balance_error"])


def _balancedness_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    given = s["small_lambda_threshold"]
    if method_label(s, loss=False):
        # the bound is on heavy ball with constant rates
        given = math.nan
    below, threshold = given is not None and s["lam"] < given, number(given)
    signs = f"0 (lambda < {threshold})" if below else f"any (lambda >= {threshold})"
    if given is not None and math.isnan(given):
        signs = "any"
    yield "sign changes of w_+-", signs, number(s["sign_changes"])
    shrinks = "1" if s["lam"] == 0 else "< 1" if s["sign_changes"] == 0 else "any"
    yield "||Delta_inf||_1 / ||Delta_0||_1", shrinks, number(s["balancedness_ratio"])


def _path_sum_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    zero = "0" if s["status"] == "converged" else "0 once converged"
    yield _check("Delta vs Delta_0 exp(-(S_+ + S_-))", zero, s, "path_sum_balancedness_error")
    yield _check("  with the boundary terms", "0", s, "path_identity_error")
    if not method_label(s):
        # the engine sums it for heavy ball with constant rates
        yield "u^2 - v^2 against its log-free sum", "0", number(s["log_free_error"])


def _path_integral_rows(s: Mapping[str, Any]) -> Iterator[Row]:
    doubt = s["path_integral_uncertainty"]
    zero = f"0 +- {number(doubt)}" if doubt else "0"
    yield (
        "Delta vs Delta_0 exp(-(I_+ + I_-))",
        zero if s["status"] == "converged" else "0 once converged",
        number(s["path_integral_balancedness_error"]),
    )
    yield "  with the boundary terms", zero, number(s["path_integral_identity_error"])


def _minimiser_rows(s: Mapping[str, Any], time: str) -> Iterator[Row]:
    zero = "0" if s["status"] == "converged" else "0 once converged"
    yield _check(f"KKT residual of theta_{time}", "0", s, "kkt_residual")
    if "sign_violation" in s:
        yield _check("  signs y_i nu_i >= 0, relative", "0", s, "sign_violation")
    # classification ends at no interpolator
    interpolates = "min_margin" not in s
    if interpolates:
        yield _check("distance to argmin D(., theta~_0)", zero, s, "distance_to_minimizer")
        yield (
            "distance to argmin psi_(Delta_inf)",
            "small if theta~_0 is",
            number(s["distance_to_unperturbed_minimizer"]),
        )
    if s.get("depth", 2) == 2:
        yield "ln ||theta~_0||", "", number(s["log_perturbed_init_norm"])
    if interpolates:
        flow = s["distance_to_gradient_flow_minimizer"]
        tends = "" if s.get("weight_decay") else "0 as lambda -> 0"
        yield "distance to the gradient-flow limit", tends, number(flow)


def _recovery_rows(s: Mapping[str, Any], unit: str) -> Iterator[Row]:
    yield "||theta - theta*||", "", number(s["recovery_error"])
    star = number(s["theta_star_norm"])
    yield f"  over ||theta*|| = {star}", "", number(s["relative_recovery_error"])
    yield from _best(s, "recovery", unit)
    yield "test error", "", number(s["test_error"])
    if "min_margin" in s:
        yield "least margin y_i <x_i, theta>", "", number(s["min_margin"])
        for norm in ("l1", "l2"):
            most = s.get(f"max_{norm}_margin")
            yield f"  over ||theta||_{norm[1]}", f"<= {number(most)}", number(s[f"{norm}_margin"])
    yield from _best(s, "test", unit)
    least = s["least_l1_norm"]
    bound = f">= {number(least)}" + ("" if s["status"] == "converged" else " once converged")
    known = least is not None and math.isfinite(least)
    yield "||theta||_1", bound if known else "", number(s["l1_norm"])
    if known:
        yield "  l1 distance to the least", "", number(s["l1_distance"])


def _recorded_rows(history: xr.Dataset | None) -> Iterator[Row]:
    """The last of each scalar that only callbacks beside the default ones record."""
    if history is None:
        return
    for key, values in history.data_vars.items():
        name, known = str(key), QUANTITIES.get(str(key))
        # a callback of the user's own has names of its own
        asked_for = known is None or "o" in known.found or name == "balance_error"
        if values.dims != ("step",) or not asked_for or name == "sharpness_threshold":
            continue
        prediction = ""
        if name == "sharpness":
            bound = number(history["sharpness_threshold"].values[-1])
            prediction = f"<= {bound} once converged"
        yield name.replace("_", " "), prediction, number(values.values[-1])


def _best(s: Mapping[str, Any], name: str, unit: str) -> Iterator[Row]:
    """The least error at the recorded places, where it is known and not at the end."""
    best, place = s.get(f"best_{name}_error"), s.get(f"best_{name}_{unit}")
    if best is not None and best < s[f"{name}_error"]:
        at = f"step {place}" if unit == "step" else f"t = {number(place)}"
        yield f"  least along the path, at {at}", "", number(best)


def _check(label: str, prediction: str, s: Mapping[str, Any], name: str) -> Row:
    """A number that tests the theorem, unless S_+- was read off the gradients."""
    by_construction = s.get("path_sums") == "gradient_sum"
    return label, "by construction" if by_construction else prediction, number(s[name])

"""TensorBoard's pages for one run or flow, written whole once it has ended.

docs/dashboards.md shows them and says how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dln_momentum.outputs import events
from dln_momentum.outputs.dashboard_columns import RESULTS, row, settings_of
from dln_momentum.outputs.dashboard_panels import panels
from dln_momentum.outputs.files import read_yaml, write_bytes
from dln_momentum.outputs.quantities import QUANTITIES, spans_decades, tag

if TYPE_CHECKING:
    import xarray as xr

    from dln_momentum.outputs.history import History

FILE = "dashboard.tfevents"
"""Event file of a finished run, in its own directory, whose path is the run's name."""
LIVE = "live.tfevents"
"""Beginning of the names of event files of a run that is under way; `write` replaces them."""

PER_DECADE = 1000
"""TensorBoard's steps to a factor of ten in t = k eps: step 2000 is t = 100."""

HISTOGRAMS = 30
"""Recorded steps that have histograms, at most."""

CHARTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "measured and predicted": {
        "log10 ||Delta||_1, and of Delta_0 exp(-(S_+ + S_-)), or I_+-": (
            "balancedness_l1", "predicted_balancedness_l1"),
        "||theta||_1, and of the minimiser where the theory says it ends": (
            "l1_norm", "minimizer_l1_norm"),
        "log10 distances to the minimisers of D: own level set 0, limit to 0": (
            "distance_to_limit", "distance_to_minimizer", "own_level_set_distance"),
    },
    "zero, to rounding or once converged": {
        "log10 errors of Delta against S_+- or I_+-": (
            "path_identity_error", "path_sum_balancedness_error",
            "path_integral_identity_error", "path_integral_balancedness_error"),
        "log10 KKT residual": ("kkt_residual",),
    },
    "errors": {
        "log10 losses and ||theta - theta*||": ("train_loss", "test_error", "recovery_error"),
    },
}  # fmt: skip
"""The charts of the page Custom Scalars, by heading and title: the quantities of each."""


def write(
    directory: Path,
    history: xr.Dataset | None,
    summary: Mapping[str, Any],
    config: str,
    *,
    figure: Path | None = None,
    others: Mapping[int, Mapping[str, float]] | None = None,
) -> None:
    """Write the dashboard of one finished run or flow: one event file in its directory.

    Args:
        directory: of the run, which TensorBoard names the run by.
        history: as ``history.nc`` has it, over ``step`` or ``time``; None for no curves.
        summary: as ``summary.json`` has it.
        config: as YAML text.
        figure: the overview, if it has been drawn.
        others: scalars by tag, by optimiser step, that have no place in the history.
    """
    # t = k eps of a run, t of a flow
    times = np.zeros(1) if history is None else history["time"].to_numpy()
    steps = log_time(times)
    last = int(steps[-1])
    found: list[tuple[int, list[events.Value] | bytes]] = []
    if history is not None:
        found += zip(steps.tolist(), curves(history), strict=True)
        found += zip(steps.tolist(), histograms(history), strict=True)
        drawn = {name for name in map(str, history.data_vars) if name in QUANTITIES}
    else:
        drawn = set()
    ends = {name: summary[name] for name in RESULTS if name in summary and name not in drawn}
    found.append((last, events.scalars(dict(logged(ends)))))
    eps = float(summary.get("eps", 1.0))
    for step, values in sorted((others or {}).items()):
        found.append((at(step * eps), events.scalars(values)))
    found.append((0, layout()))
    found.append((0, row(settings_of(summary, read_yaml(config)), row_name(directory))))
    found.append((0, page(summary, config)))
    if figure is not None:
        found.append((last, panels(figure)))
    write_events(directory / FILE, found)
    for live in directory.glob(f"{LIVE}*"):
        live.unlink()


def write_events(path: Path, found: Iterable[tuple[int, Sequence[events.Value] | bytes]]) -> None:
    """Write an event file, whole or not at all, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, events.head() + events.events(found))


def live_events(history: History, eps: float, after: int | None, before: int) -> bytes:
    """Scalars that were recorded after one step and before another, medians of several runs.

    A step takes the time eps; None is for the start.
    """
    steps = [step for step in history.steps if (after is None or step >= after) and step < before]
    # the place of step 0 depends on the first one after it, which is 1
    times = log_time(np.array([0, 1, *steps]) * eps)[2:].tolist() if steps else []
    found = []
    for step, time in zip(steps, times, strict=True):
        values = {
            name: float(column[step].double().nanmedian())
            for name, column in history.values.items()
            if step in column and column[step].ndim == 1 and name in QUANTITIES
        }
        found.append((time, events.scalars(dict(logged(values)))))
    return events.events(found)


def log_time(times: np.ndarray) -> np.ndarray:
    """TensorBoard's step of increasing times: `PER_DECADE` log10 t, rounded; 0 at half the next.

    >>> log_time(np.array([0.0, 0.1, 1.0, 50.0]))
    array([-1301, -1000,     0,  1699])
    """
    positive = times[times > 0]
    shown = np.maximum(times, positive[0] / 2 if positive.size else 1.0)
    return np.round(PER_DECADE * np.log10(shown)).astype(np.int64)


def at(time: float) -> int:
    """TensorBoard's step of one time > 0; 0 for none."""
    return int(log_time(np.array([time]))[0]) if time > 0 else 0


def logged(values: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Numbers by tag, in the decimal logarithm where the quantity spans decades; no 0 there."""
    for name, value in values.items():
        if value is None or not QUANTITIES[name].group:
            continue
        if not spans_decades(name):
            yield tag(name), float(value)
        elif value > 0:
            yield tag(name), float(np.log10(value))


def curves(history: xr.Dataset) -> list[bytes]:
    """The scalars of every recorded step, those that are compared with them among them."""
    variables = history.variables
    axes = variables["time"].dims
    columns = {
        str(name): variables[name].to_numpy()
        for name in history.data_vars
        if variables[name].dims == axes
    } | _predicted(history)
    shown: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if name not in QUANTITIES:
            shown[f"monitors/{name}"] = column
        elif QUANTITIES[name].group:
            shown.update([as_shown(name, column)])
    return events.scalar_rows(shown) if shown else [b""] * variables["time"].size


def as_shown(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """The tag of a quantity, and its values as the tag says: logarithms where it spans decades."""
    return tag(name), _log10(values) if spans_decades(name) else values


def _predicted(history: xr.Dataset) -> dict[str, np.ndarray]:
    """What the theory says of two of the curves."""
    found = {}
    size = len(history["time"])
    if "minimizer" in history:
        norm = float(np.abs(history["minimizer"]).sum())
        found["minimizer_l1_norm"] = np.full(size, norm)
    for plus, minus, error in (
        ("s_plus", "s_minus", "path_identity_error"),
        ("i_plus", "i_minus", "path_integral_identity_error"),
    ):
        needed = {plus, minus, error, "balancedness"}
        # without the error the exponents were read off the gradients, and predict nothing
        if needed <= set(history) and bool(history[error].notnull().any()):
            with np.errstate(over="ignore"):
                exponential = np.exp(-(history[plus] + history[minus]).to_numpy())
            start = history["balancedness"][0].to_numpy()
            found["predicted_balancedness_l1"] = (start * exponential).sum(-1)
    return found


def histograms(history: xr.Dataset) -> list[list[events.Value]]:
    """theta and log10 Delta over the coordinates, at some of the recorded steps."""
    size = len(history["time"])
    chosen = np.linspace(0, size - 1, min(size, HISTOGRAMS)).round().astype(int)
    found: list[list[events.Value]] = [[] for _ in range(size)]
    for name, column in (
        ("vectors/theta", history.get("theta")),
        ("vectors/log10 balancedness", history.get("balancedness")),
    ):
        if column is None:
            continue
        rows = column.to_numpy()[chosen]
        shown = events.histograms(name, _log10(rows) if "log10" in name else rows)
        for place, values in zip(chosen.tolist(), shown, strict=True):
            found[place] += values
    return found


def page(summary: Mapping[str, Any], config: str) -> list[events.Value]:
    """The summary as a table, what is nested in it left to the file, and the config, as text."""
    rows = "\n".join(
        f"| {name} | {f'{value:.6g}' if isinstance(value, float) else value} |"
        for name, value in summary.items()
        if not isinstance(value, Mapping | list)
    )
    return events.text("summary", f"| | |\n|---|---|\n{rows}\n\n```yaml\n{config}\n```")


def row_name(directory: Path) -> str:
    """What HPARAMS calls a run: its path from the end, of which the table shows the beginning.

    >>> row_name(Path("outputs/train/2026-11-26/09-30-00-1a2b/beta_0.9"))
    'beta_0.9 09-30-00-1a2b 2026-11-26'
    """
    return " ".join(directory.absolute().parts[:-4:-1])


def layout() -> list[events.Value]:
    """The charts of the page Custom Scalars."""
    return events.layout(
        {
            heading: {
                title: [f"^{tag(name)}$" for name in names] for title, names in charts.items()
            }
            for heading, charts in CHARTS.items()
        }
    )


def _log10(values: np.ndarray) -> np.ndarray:
    """Decimal logarithms, nan where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log10(values), np.nan)

"""``optimized_metric``: the result of a run that a sweeper, as Optuna's, makes small or large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dln_momentum.nearest import did_you_mean
from dln_momentum.outputs.quantities import QUANTITIES

FOUND_IN = {"train": "t", "flow": "f", "sweep": "w", "verify": "v"}
"""The letter of `Quantity.found` for the result of each command."""
MEDIANS = "medians."
"""Before the name of a result of a sweep's runs: their median."""


def metric_errors(app: str, given: Mapping[Any, Any] | Sequence[str]) -> Iterator[str]:
    """What is wrong with ``optimized_metric`` in a config or in the words of a command line.

    >>> list(metric_errors("train", ["optimized_metric=recovry_error"]))
    ["optimized_metric = 'recovry_error' (did you mean recovery_error?) must be null or a number of
    the summary of dln-train, see docs/quantities.md"]
    >>> list(metric_errors("sweep", ["optimized_metric=medians.recovery_error", "seed=1"]))
    []
    """
    if isinstance(given, Mapping):
        names = [given.get("optimized_metric")]
    else:
        pairs = [word.partition("=") for word in given]
        names = [value for key, _, value in pairs if key == "optimized_metric"]
    known = _numbers(FOUND_IN[app])
    if app == "sweep":
        known += [f"{MEDIANS}{name}" for name in _numbers("r")]
    for name in names:
        if name not in (*known, None, "null"):
            yield (
                f"optimized_metric = {name!r}{did_you_mean(str(name), known)} must be null or a "
                f"number of the summary of dln-{app}, see docs/quantities.md"
            )


def metric_of(config: Mapping[Any, Any], found: Mapping[str, Any] | None) -> float | None:
    """The value that ``optimized_metric`` names.

    None where the job failed or the value is not a finite number, as of a run that diverged: Optuna
    then counts the trial as failed and goes on, whereas a NaN ends its sweep with an exception.
    """
    name = config.get("optimized_metric")
    value = None if name is None else result_at(found, str(name))
    return float(value) if value is not None and math.isfinite(value) else None


def result_at(found: Mapping[str, Any] | None, name: str) -> Any:
    """A value of a summary by its name, with a dot for one within another; None for none.

    >>> result_at({"medians": {"steps": 5}}, "medians.steps"), result_at(None, "steps")
    (5, None)
    """
    value: Any = found
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _numbers(place: str) -> list[str]:
    return [name for name, entry in QUANTITIES.items() if place in entry.found and entry.units]

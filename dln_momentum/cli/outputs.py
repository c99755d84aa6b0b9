"""The section ``outputs``: what a run leaves beside its config and its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from dln_momentum.config import Reader

KINDS = {"history": bool, "figure": bool | None, "dashboard": bool, "checkpoint": bool}
"""The keys of the section and their types."""


class Outputs(NamedTuple):
    """What to write."""

    history: bool
    figure: bool
    dashboard: bool
    checkpoint: bool


def check_outputs(reader: Reader) -> None:
    """Read the section, if there is one, and note what is wrong with it."""
    if "outputs" not in reader.config:
        return
    found = {key: reader.value(f"outputs.{key}", kind) for key, kind in KINDS.items()}
    if found["figure"] and found["history"] is False:
        reader.errors.append("outputs.figure = True needs outputs.history = True, which it draws")


def outputs_of(config: Mapping[Any, Any]) -> Outputs:
    """What a checked config asks for; everything where it has no section.

    A figure takes longer than the run, so that of a multirun is drawn for those who look at it.
    """
    given = {key: config.get("outputs", {}).get(key) for key in KINDS}
    chosen = {key: value is None or bool(value) for key, value in given.items()}
    if given["figure"] is None:
        alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
        chosen["figure"] = chosen["history"] and alone
    return Outputs(**chosen)

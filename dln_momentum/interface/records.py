"""What `train` records of all runs at the steps of its plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from dln_momentum.engine import Engine, Snapshot
from dln_momentum.outputs.changing_rates import rates_at_step
from dln_momentum.outputs.history import History
from dln_momentum.outputs.minimisers import certificate
from dln_momentum.outputs.summary import (
    balancedness_scalars,
    coordinates,
    curvature,
    path_sum_scalars,
    recovery,
)
from dln_momentum.problem import Problem


@dataclass
class Records:
    """The quantities of all runs at the recorded steps."""

    trajectories: bool
    """whether values per coordinate are kept"""
    curvature: bool = False
    """whether the sharpness is kept"""
    history: History = field(default_factory=History)

    def add(self, engine: Engine) -> None:
        """Record the runs as they stand."""
        found = engine.measure(self._values)
        found |= rates_at_step(engine.method.schedule, engine.gamma, engine.beta, engine.step)
        self.history.record(engine.step, found)

    def _values(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        values = {
            "train_loss": snapshot.loss,
            **recovery(snapshot.theta, problem),
            **balancedness_scalars(snapshot),
            **path_sum_scalars(snapshot),
            **certificate(snapshot, problem),
        }
        if self.curvature:
            values |= curvature(snapshot, problem)
        if self.trajectories:
            values |= coordinates(snapshot)
        return values

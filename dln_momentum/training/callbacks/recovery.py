"""How well the predictor does along a run."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import recovery
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule


class RecoveryMonitor(Monitor):
    """Training loss, ||theta - theta*||, test error, ||theta||_1, and theta_k itself.

    Of another architecture, which has no theta, the training loss alone.
    """

    group = "recovery"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The scalars of `dln_momentum.outputs.summary.recovery`."""
        scalars = recovery(snapshot.theta, problem)
        return {"train_loss": snapshot.loss} | scalars | {"theta": snapshot.theta}

    def _record(self, module: HeavyBallModule) -> None:
        if module.diagonal:
            super()._record(module)
            module.record("rates", module.changing_rates)
        else:
            module.record(self.group, {"train_loss": module.stepper.loss})

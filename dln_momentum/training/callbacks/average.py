"""The running average of the predictor along a run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dln_momentum.engine.problems import groups_of
from dln_momentum.outputs.summary import recovery
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule


class AverageMonitor(Monitor):
    """theta_bar_k, the mean of theta_1, ..., theta_{k+1}: its distance to theta* and its error.

    Each block of steps counts by the trapezoidal rule of its two ends: with
    ``trainer.block_size=1`` it is the mean of all iterates, with longer blocks an approximation
    that misses what oscillates within a block. Checkpoints hold the sum.
    """

    group = "average"
    block_size = 2000
    """of a plan that has none: the mean depends on where blocks end"""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._last: Tensor | None = None
        self._step = 0

    def at_start(self, module: HeavyBallModule) -> None:
        """Begin the sum with theta_1."""
        self._add(module)
        self._put(module)

    def after_block(self, module: HeavyBallModule) -> None:
        """Add the block, and record at the steps of the plan."""
        self._add(module)
        if module.due:
            self._put(module)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"sum": self._sum, "last": self._last, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._sum, self._last = state_dict["sum"], state_dict["last"]
        self._step = state_dict["step"]

    def _add(self, module: HeavyBallModule) -> None:
        snapshot = module.snapshot() if module.diagonal else None
        if snapshot is None:
            return
        theta, step = snapshot.theta, module.stepper.step
        if self._sum is None or self._last is None:
            self._sum = theta.clone()
        else:
            # theta_{k+1} of a block of s steps: the trapezoidal rule, which at s = 1 is the sum
            steps = step - self._step
            self._sum = self._sum + theta * (steps + 1) / 2 + self._last * (steps - 1) / 2
        self._last, self._step = theta.clone(), step

    def _put(self, module: HeavyBallModule) -> None:
        if self._sum is None:
            return
        mean = self._sum / (self._step + 1)
        found = {name: mean.new_full((len(mean),), float("nan")) for name in _NAMES.values()}
        for group in groups_of(module.data.problems):
            values = recovery(mean[group.places], group.problem)
            for name, own in _NAMES.items():
                found[own][group.places] = values[name]
        module.record(self.group, found | {"theta_average": mean})


_NAMES = {"recovery_error": "average_recovery_error", "test_error": "average_test_error"}

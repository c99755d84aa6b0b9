"""When monitors measure: at step 0, at log-spaced steps, and at the last."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.problem import Problem
from dln_momentum.training.module import HeavyBallModule


class Monitor(pl.Callback):
    """Measures a diagonal network at the recorded steps; a subclass says what.

    Values of shape [R] go to the dashboard under ``group/name`` and to the history; values of
    shape [R, d] to the history alone. Another architecture has no snapshot to measure.
    """

    group: ClassVar[str]

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The values at one step, for some runs and their problem."""
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record step 0; a resumed run has recorded where it stands."""
        assert isinstance(pl_module, HeavyBallModule)
        if pl_module.stepper.step == 0:
            self._record(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record at the steps of the plan, and where the run ends."""
        assert isinstance(pl_module, HeavyBallModule)
        if pl_module.due:
            self._record(pl_module)

    def _record(self, module: HeavyBallModule) -> None:
        if module.diagonal:
            module.record(self.group, module.measure(self.measure))

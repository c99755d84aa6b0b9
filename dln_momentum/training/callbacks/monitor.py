"""When monitors measure: at step 0, at log-spaced steps, and at the last."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.problem import Problem
from dln_momentum.training.module import HeavyBallModule


class BlockCallback(pl.Callback):
    """Called with the module before the first block of steps, and after each."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first block."""
        assert isinstance(pl_module, HeavyBallModule)
        self.at_start(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """After a block."""
        assert isinstance(pl_module, HeavyBallModule)
        self.after_block(pl_module)

    def at_start(self, module: HeavyBallModule) -> None:
        """Before the first block."""

    def after_block(self, module: HeavyBallModule) -> None:
        """After a block."""


class Monitor(BlockCallback):
    """Measures a diagonal network at the recorded steps; a subclass says what.

    Values of shape [R] go to the dashboard under ``group/name`` and to the history; values of
    shape [R, d] to the history alone. Another architecture has no snapshot to measure.
    """

    group: ClassVar[str]

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The values at one step, for some runs and their problem."""
        raise NotImplementedError

    def at_start(self, module: HeavyBallModule) -> None:
        """Record step 0; a resumed run has recorded where it stands."""
        if module.stepper.step == 0:
            self._record(module)

    def after_block(self, module: HeavyBallModule) -> None:
        """Record at the steps of the plan, and where the run ends."""
        if module.due:
            self._record(module)

    def _record(self, module: HeavyBallModule) -> None:
        if module.diagonal:
            module.record(self.group, module.measure(self.measure))

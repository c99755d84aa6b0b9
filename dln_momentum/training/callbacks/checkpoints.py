"""Checkpoints at regular steps and at the end, none ever replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint


class StepCheckpoints(Checkpoint):
    """``step_N.ckpt`` every so many optimiser steps, and ``last.ckpt`` where the run ends.

    Lightning's own ModelCheckpoint ranks by a metric and warns about blocks of steps; nothing is
    ranked here. As a `Checkpoint` it runs after the monitors, so that a checkpoint's history
    includes the step it was taken at.

    Args:
        folder: where they go.
        every: steps between them, as in the plan; 0 for the last alone.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder = folder
        self._every = every

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save a checkpoint every `every` steps."""
        if self._every and trainer.global_step % self._every == 0:
            trainer.save_checkpoint(self._folder / f"step_{trainer.global_step}.ckpt")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last checkpoint."""
        trainer.save_checkpoint(self._folder / "last.ckpt")

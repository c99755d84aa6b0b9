"""Checkpoints every so often and at the end, of which the last ones are kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from dln_momentum.outputs.files import move_whole
from dln_momentum.training.resuming import step_of_checkpoint

KEPT = 2
"""Checkpoints on the way that are kept: should the newest be damaged, there is one before it."""


class StepCheckpoints(Checkpoint):
    """``step_N.ckpt`` on the way, the last two of them, and ``last.ckpt`` where the run ends.

    Lightning's own ModelCheckpoint ranks by a metric and warns about blocks of steps; nothing is
    ranked here. As a `Checkpoint` it runs after the monitors, so that a checkpoint's history
    includes the step it was taken at. A file is written whole or not at all.

    Args:
        folder: where they go.
        seconds: time between them, at the end of the block of steps in which it is over; 0 for
            none on the way.
        every: steps between them, as in the plan; 0 for none.
        last: whether to save one where the run ends.
    """

    def __init__(self, folder: Path, seconds: float, every: int = 0, *, last: bool = True) -> None:
        self._folder, self._seconds, self._every = folder, seconds, every
        self._saves_last = last
        self._last = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._last = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save a checkpoint if one is due, and remove the oldest on the way."""
        step, now = trainer.global_step, time.monotonic()
        late = self._seconds > 0 and now - self._last >= self._seconds
        if not late and not (self._every and step % self._every == 0):
            return
        self._save(trainer, f"step_{step}.ckpt")
        self._last = now
        saved = sorted(self._folder.glob("step_*.ckpt"), key=step_of_checkpoint)
        # those of later steps could not be read when this run went on
        later = [path for path in saved if step_of_checkpoint(path) > step]
        for path in [*later, *saved[: len(saved) - len(later)][:-KEPT]]:
            path.unlink()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last checkpoint, if it is wanted."""
        if self._saves_last:
            self._save(trainer, "last.ckpt")

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        part = self._folder / f".{name}.part"
        try:
            trainer.save_checkpoint(part)
            move_whole(part, self._folder / name, durable=True)
        finally:
            # of a disk that is full: what was written of it takes room
            part.unlink(missing_ok=True)

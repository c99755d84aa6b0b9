"""One progress bar over optimiser steps, for a terminal."""

from __future__ import annotations

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from dln_momentum.engine import Status
from dln_momentum.training.callbacks.monitor import BlockCallback
from dln_momentum.training.module import HeavyBallModule


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar that counts, with the time that is left and a note."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
        disable=not shown,
    )


class BlockProgress(BlockCallback):
    """Steps done, how many runs are under way, and the largest training loss among them."""

    def __init__(self) -> None:
        self._bar = progress_bar()

    def at_start(self, module: HeavyBallModule) -> None:
        """Show the bar."""
        self._task = self._bar.add_task("steps", total=module.data.plan.max_steps, note="")
        self._bar.start()

    def after_block(self, module: HeavyBallModule) -> None:
        """Update the bar."""
        stepper = module.stepper
        running = stepper.status == Status.RUNNING
        note = f"{int(running.sum())}/{len(running)} running"
        if running.any():
            note += f", loss <= {float(stepper.loss[running].max()):.0e}"
        self._bar.update(self._task, completed=stepper.step, note=note)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the bar, also after an exception."""
        self._bar.stop()

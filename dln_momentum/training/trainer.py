"""Lightning's Trainer, set up for blocks of steps."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from dln_momentum.training.callbacks import (
    BalancednessMonitor,
    BlockProgress,
    ImplicitBiasMonitor,
    PathSumsMonitor,
    RecoveryMonitor,
    StepCheckpoints,
)
from dln_momentum.training.module import HeavyBallModule


def fit(
    module: HeavyBallModule,
    checkpoints: Path,
    loggers: Sequence[Logger] = (),
    *,
    monitors: Sequence[pl.Callback] | None = None,
    accelerator: str = "cpu",
    checkpoint_seconds: float = 0.0,
    progress: bool | None = None,
    resume: str | Path | None = None,
    last_checkpoint: bool = True,
) -> None:
    """Train to the end of every run.

    Args:
        module: the runs, their data and plan.
        checkpoints: the folder where checkpoints go.
        loggers: where the monitors log.
        monitors: what to measure at the recorded steps; None for everything.
        accelerator: ``cpu`` or ``gpu``.
        checkpoint_seconds: time between checkpoints, beside those of the plan and the last one.
        progress: whether to show a bar, as `shows_progress` takes it.
        resume: a checkpoint to continue from.
        last_checkpoint: whether to save one where the runs end.
    """
    every = module.data.plan.checkpoint_every
    saving = StepCheckpoints(checkpoints, checkpoint_seconds, every, last=last_checkpoint)
    if monitors is None:
        monitors = [
            BalancednessMonitor(),
            PathSumsMonitor(),
            RecoveryMonitor(),
            ImplicitBiasMonitor(minimisers=module.trajectories),
        ]
    bar = [BlockProgress()] if shows_progress(progress) else []
    with quiet():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=-1,  # the module itself says when every run has ended
            callbacks=[*monitors, saving, *bar],
            logger=list(loggers) or False,
            default_root_dir=checkpoints.parent,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            module,
            module.data,
            ckpt_path=None if resume is None else str(resume),
            weights_only=True,
        )


def shows_progress(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or with None, whenever the output is a terminal."""
    return sys.stdout.isatty() if progress is None else progress


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advertisement, its advice on devices, and its own deprecated calls."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            # a config says cpu because small networks are faster there
            warnings.filterwarnings("ignore", message="GPU available but not used.*")
            # blocks come from a generator: there is no loader whose workers could be raised
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        logger.setLevel(level)

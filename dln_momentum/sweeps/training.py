"""Training a study piece by piece; what is done is on the disk and is not done again."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import xarray as xr

from dln_momentum.cli.fitting import monitors_of
from dln_momentum.cli.job import Job
from dln_momentum.cli.setup import built
from dln_momentum.engine import Status
from dln_momentum.errors import InputError
from dln_momentum.outputs.provenance import data_hash, digest
from dln_momentum.outputs.results import piece_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.sweeps.assembly import Piece, Study
from dln_momentum.sweeps.piece_files import changed, kept_piece
from dln_momentum.training.callbacks.progress import progress_bar
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.resuming import newest_checkpoint, read_checkpoint
from dln_momentum.training.trainer import fit, shows_progress


def trained(job: Job, study: Study, pieces: Sequence[Piece]) -> Iterator[xr.Dataset]:
    """The results of each piece: read from ``pieces/`` if they are there, else trained now.

    A piece that was interrupted goes on from its newest checkpoint. The results are the same bits
    in any case, since they are always read from the file.

    Raises:
        InputError: where the data of a finished piece have changed since.
    """
    folder = job.directory / "pieces"
    folder.mkdir(exist_ok=True)
    with _Bar(study, pieces, shown=shows_progress(job.config.trainer.progress)) as bar:
        for piece in pieces:
            file = folder / f"{piece.number:04d}.npz"
            train = partial(_train, job, study, piece, bar)
            found = kept_piece(file, _data_hash(study, piece), train)
            if not np.array_equal(found["point"], piece.points):
                raise InputError([changed(file)])
            bar.finish(piece)
            # a trainer, its module and their states refer to each other: 25 kB a run
            gc.collect()
            yield found


def check_resume(job: Job, study: Study, pieces: Sequence[Piece]) -> None:
    """Check that ``resume``, if given, is a folder with a checkpoint of every piece.

    Raises:
        InputError: where it is not, or has the checkpoint of another sweep.
    """
    if job.config.resume is not None:
        for piece in pieces:
            study.setup(piece).module(resume=_of_another_run(job.config.resume, piece, study))


def _train(job: Job, study: Study, piece: Piece, bar: _Bar) -> xr.Dataset:
    started, config = time.perf_counter(), job.config
    setup = study.setup(piece)
    folder = job.directory / "checkpoints" / f"{piece.number:04d}"
    resume = newest_checkpoint(folder) or _of_another_run(config.resume, piece, study)
    module = setup.module(trajectories=config.sweep.trajectories, resume=resume)
    before = 0 if resume is None else read_checkpoint(resume)["stepper"]["engine"]["steps"].sum()
    fit(
        module,
        folder,
        monitors=[*monitors_of(config), bar],
        accelerator=config.trainer.accelerator,
        checkpoint_seconds=config.trainer.checkpoint_seconds,
        progress=False,
        resume=resume,
    )
    training = time.perf_counter() - started
    bar.describe(piece, "minimisers")
    values = module.measure(end_of_runs)
    found = piece_dataset(
        values, piece.points, module.history if module.history.values else None,
        sorted(setup.plan.recorded),
    )  # fmt: skip
    return found.assign_attrs(
        seconds_training=training,
        seconds_minimisers=time.perf_counter() - started - training,
        run_steps_before=int(before),
    )


def _of_another_run(resume: str | None, piece: Piece, study: Study) -> Path | None:
    """The checkpoint of another sweep that a piece continues from; ``resume`` is its folder."""
    if resume is None:
        return None
    path = Path(resume)
    if path.is_file() and len(study.pieces) == 1:
        return path
    found = newest_checkpoint(path / f"{piece.number:04d}")
    if found is None:
        raise InputError(
            [f"resume = {resume!r} has no checkpoint of piece {piece.number}; it must be the "
             "folder checkpoints of the same sweep"]
        )  # fmt: skip
    return found


def _data_hash(study: Study, piece: Piece) -> str:
    part = study.points.data
    numbers = np.unique(part.index[piece.points])
    return digest([], " ".join(data_hash(built(part.made[number])) for number in numbers))


class _Bar(pl.Callback):
    """One bar over all runs of a sweep, which counts a run when it has ended."""

    def __init__(self, study: Study, pieces: Sequence[Piece], *, shown: bool) -> None:
        self._bar = progress_bar(shown=shown)
        total = sum(len(piece.points) for piece in pieces)
        self._task = self._bar.add_task("runs", total=total, note="")
        self._pieces = len(study.pieces)
        self._done = 0

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def describe(self, piece: Piece, what: str) -> None:
        """Say what is being done to a piece."""
        note = f"piece {piece.number + 1} of {self._pieces}: {what}"
        self._bar.update(self._task, note=note)

    def finish(self, piece: Piece) -> None:
        """Count all runs of a piece."""
        self._done += len(piece.points)
        self._bar.update(self._task, completed=self._done)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the runs that have ended."""
        assert isinstance(pl_module, HeavyBallModule)
        stepper = pl_module.stepper
        ended = int((stepper.status != Status.RUNNING).sum())
        note = f"step {stepper.step:,}"
        self._bar.update(self._task, completed=self._done + ended, note=note)

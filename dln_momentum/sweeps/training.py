"""Training a study piece by piece; what is done is on the disk and is not done again."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from dln_momentum.cli.command import quietly
from dln_momentum.cli.fitting import monitors_of
from dln_momentum.cli.job import Job
from dln_momentum.cli.setup import built
from dln_momentum.engine import Status
from dln_momentum.errors import InputError
from dln_momentum.outputs.provenance import data_hash, digest
from dln_momentum.outputs.results import piece_dataset
from dln_momentum.outputs.summary import end_of_runs
from dln_momentum.sweeps.assembly import Piece, Study
from dln_momentum.sweeps.forked import results_of
from dln_momentum.sweeps.piece_files import kept_piece
from dln_momentum.sweeps.rounds import rounds
from dln_momentum.training.callbacks.monitor import BlockCallback
from dln_momentum.training.callbacks.progress import progress_bar
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.resuming import newest_checkpoint, read_checkpoint
from dln_momentum.training.trainer import fit, shows_progress

Said = tuple[int, int, str]
"""Of a piece its number, how many of its runs have ended, and what is done to it."""
Tell = Callable[[Said], None]


def trained(
    job: Job, study: Study, pieces: Sequence[Piece], meanwhile: Callable[[], None] | None = None
) -> list[xr.Dataset]:
    """The results of each piece: read from ``pieces/`` if they are there, else trained now.

    Long ones are trained at once, see `rounds`, and on a CPU the others too leave this process, if
    it has something to do meanwhile. A piece that was interrupted goes on from its
    newest checkpoint. The results are the same bits in any case, since they are always read from
    the file.

    Args:
        job: of the sweep.
        study: all of it.
        pieces: those to be done.
        meanwhile: done once in this process, if others train.

    Raises:
        InputError: where a finished piece is of other data or points.
    """
    folder = job.directory / "pieces"
    folder.mkdir(exist_ok=True)
    bar = _Bar(study, pieces, shown=shows_progress(job.config.trainer.progress))

    def kept(piece: Piece, threads: int | None = None, tell: Tell = bar.note) -> xr.Dataset:
        file, data = _file(folder, piece), _data_hash(study, piece)
        found = kept_piece(file, data, partial(_train, job, study, piece, threads, tell))
        if not np.array_equal(found["point"], piece.points):
            raise InputError(_of_other_points(file))
        return found

    with bar.stopped():
        found = {piece.number: kept(piece) for piece in pieces if _file(folder, piece).exists()}
        for number in found:
            bar.note((number, len(study.pieces[number].points), ""))
    left = [piece for piece in pieces if piece.number not in found]
    for number, (some, at_once, threads) in enumerate(rounds(job.config, study, left)):
        if at_once > 1 and number == 0:
            with quietly():  # once for all forks: kernels are loaded, on a new machine compiled
                study.setup(some[0]).module()
            gc.collect()

        def done(piece: Piece, tell: Tell, threads: int = threads) -> None:
            kept(piece, threads, tell)
            tell((piece.number, len(piece.points), ""))
            # a trainer, its module and their states refer to each other: 25 kB a run
            gc.collect()

        beside = meanwhile if number == 0 and _device(study, some[0]) == "cpu" else None
        results = results_of(done, some, at_once, least=1, notes=bar.note, meanwhile=beside)
        with bar.stopped(), closing(results):
            for _, result in results:
                if isinstance(result, Exception):
                    raise result
    return [found[piece.number] if piece.number in found else kept(piece) for piece in pieces]


def _device(study: Study, piece: Piece) -> str:
    return study.points.advance.at(int(piece.points[0])).device


def _file(folder: Path, piece: Piece) -> Path:
    return folder / f"{piece.number:04d}.npz"


def check_resume(job: Job, study: Study, pieces: Sequence[Piece]) -> None:
    """Check that ``resume``, if given, is a folder with a checkpoint of every piece.

    Raises:
        InputError: where it is not, or has the checkpoint of another sweep.
    """
    if job.config.resume is not None:
        for piece in pieces:
            study.setup(piece).module(resume=_of_another_run(job.config.resume, piece, study))


def _of_other_points(file: Path) -> str:
    return (
        f"{file} has other points of the grid than this version gives the piece; end the sweep "
        "with the version that began it, or start anew"
    )


def _train(job: Job, study: Study, piece: Piece, threads: int | None, tell: Tell) -> xr.Dataset:
    began, started, config = time.time(), time.perf_counter(), job.config
    setup = study.setup(piece)
    if threads is not None:
        setup = replace(setup, options=replace(setup.options, num_workers=threads))
    folder = job.directory / "checkpoints" / f"{piece.number:04d}"
    own = newest_checkpoint(folder)
    resume = own or _of_another_run(config.resume, piece, study)
    try:
        module = setup.module(trajectories=config.sweep.trajectories, resume=resume)
    except InputError as error:
        if own is None:
            raise
        raise InputError([_of_other_points(own), *error.problems]) from error
    before = 0 if resume is None else read_checkpoint(resume)["stepper"]["engine"]["steps"].sum()
    fit(
        module,
        folder,
        monitors=[*monitors_of(config), _Teller(piece, tell)],
        accelerator=config.trainer.accelerator,
        checkpoint_seconds=config.trainer.checkpoint_seconds,
        progress=False,
        resume=resume,
    )
    training = time.perf_counter() - started
    tell((piece.number, len(piece.points), "minimisers"))
    values = module.measure(end_of_runs)
    found = piece_dataset(
        values, piece.points, module.history if module.history.values else None,
        sorted(setup.plan.recorded),
    )  # fmt: skip
    return found.assign_attrs(
        began=began,
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


class _Bar:
    """One bar over all runs of a sweep, which counts a run when it has ended.

    It is shown from the first note on: no fork must have its thread and the lock of that.
    """

    def __init__(self, study: Study, pieces: Sequence[Piece], *, shown: bool) -> None:
        self._bar = progress_bar(shown=shown)
        total = sum(len(piece.points) for piece in pieces)
        self._task = self._bar.add_task("runs", total=total, note="")
        self._pieces = len(study.pieces)
        self._ended: dict[int, int] = {}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the bar after what is done."""
        try:
            yield
        finally:
            self._bar.stop()

    def note(self, said: Said) -> None:
        """Show how far a piece is."""
        number, ended, what = said
        self._bar.start()
        self._ended[number] = ended
        note = f"piece {number + 1} of {self._pieces}: {what}" if what else ""
        self._bar.update(self._task, completed=sum(self._ended.values()), note=note)


class _Teller(BlockCallback):
    """Tells after each block how many runs have ended."""

    def __init__(self, piece: Piece, tell: Tell) -> None:
        self._number, self._tell = piece.number, tell

    def after_block(self, module: HeavyBallModule) -> None:
        """Tell it."""
        stepper = module.stepper
        ended = int((stepper.status != Status.RUNNING).sum())
        self._tell((self._number, ended, f"step {stepper.step:,}"))

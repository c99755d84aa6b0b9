"""A group of jobs of a multirun, trained as the runs of one module, each with its own files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_class

from dln_momentum.cli.command import Command, quietly
from dln_momentum.cli.fitting import monitors_of, report_alone
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.cli.run_files import TrainedRuns
from dln_momentum.cli.signals import Interrupted
from dln_momentum.cli.train import write_figure
from dln_momentum.outputs.provenance import digest
from dln_momentum.outputs.status import write_text
from dln_momentum.sweeps.assembly import Piece, Study
from dln_momentum.sweeps.forked import results_of
from dln_momentum.training.board import DashboardLogger
from dln_momentum.training.resuming import newest_checkpoint
from dln_momentum.training.trainer import fit

Result = dict[str, Any]

JOBS = "jobs"
"""Names, in the folder of a group, the jobs that its checkpoints are of."""


class Group(NamedTuple):
    """Jobs, and the piece of a study whose runs they are, in the same order."""

    study: Study
    piece: Piece
    jobs: list[Job]

    def halves(self) -> tuple[Group, Group]:
        """The first and the second half of the jobs."""
        middle, points = len(self.jobs) // 2, self.piece.points
        return tuple(
            Group(self.study, Piece(self.piece.number, points[part]), self.jobs[part])
            for part in (slice(None, middle), slice(middle, None))
        )  # pyright: ignore[reportReturnType]


def train(command: Command, group: Group, folder: Path) -> list[Result | None]:
    """Train the jobs of a group together, and finish each.

    Where that fails, each half is trained by itself, down to the jobs that it fails for. The
    groups of a multirun keep their checkpoints in the folder.

    Returns:
        What each job finishes with; None for one that fails, or is left to be done alone.
    """
    study, piece, jobs = group
    # named by what is trained, so that the same multirun finds it after an interruption
    hashes = [job.config_hash for job in jobs]
    own = folder / digest([], " ".join(hashes))
    resume = newest_checkpoint(own)
    try:
        module = study.setup(piece).module(resume=resume)
    except Exception:  # each job says it of itself
        begun = any(job.state == "running" for job in jobs)
        return _apart(command, group, folder) if begun else [None] * len(jobs)
    config = study.points.config_at(int(piece.points[0]))
    for job in jobs:
        if not job.state:
            command.attempt(job, Job.begin)
    try:
        own.mkdir(parents=True, exist_ok=True)
        write_text(own / JOBS, "\n".join(hashes))
        fit(
            module,
            own,
            monitors=monitors_of(config),
            accelerator=config.trainer.accelerator,
            checkpoint_seconds=config.trainer.checkpoint_seconds,
            progress=False,
            resume=resume,
            last_checkpoint=False,
        )
        runs = TrainedRuns(module)
        runs.solve()
    except Exception:
        found = None
    except BaseException:
        _interrupt(jobs)
        raise
    # either way there is nothing to go on from
    else:
        found = _finished(command, group, runs)
    shutil.rmtree(own, ignore_errors=True)
    if found is None:
        del module
        found = _apart(command, group, folder)
    return found


def kept(folder: Path) -> list[list[str]]:
    """The jobs of each group that was interrupted, by the hashes of their configs, in order."""
    return [hashes for _, hashes in _kept(folder)]


def forget(folder: Path, done: Collection[str]) -> None:
    """Remove the checkpoints of interrupted groups whose jobs are all done by now.

    The folder where the groups of a multirun keep them goes too, once it is empty.
    """
    for path, hashes in _kept(folder):
        if set(hashes) <= set(done):
            shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _kept(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for path in sorted(folder.glob(f"*/{JOBS}")):
        # another process that does some of these jobs may remove it
        with suppress(FileNotFoundError):
            yield path.parent, path.read_text().split()


def _apart(command: Command, group: Group, folder: Path) -> list[Result | None]:
    """Train the halves of a group, or its only job by itself."""
    (first, *others) = group.jobs
    if others:
        return [found for half in group.halves() for found in train(command, half, folder)]
    # as it does alone: it says what is wrong
    return [command.attempt(first, command.work) if first.state == "running" else None]


def _finished(command: Command, group: Group, runs: TrainedRuns) -> list[Result | None]:
    """Write the files of each job on all cores, and say here of each that it is done."""
    jobs, config = group.jobs, group.jobs[0].config
    found: list[Result | None] = [None] * len(jobs)

    def written(run: int) -> Result:
        job = jobs[run]
        with quietly():
            summary, history = runs.write(run, job)
            report_alone(job, history, summary, write_figure(job, history, summary), config)
        return summary

    def done(run: int, result: Result | Exception) -> None:
        def step(job: Job) -> Result:
            if isinstance(result, Exception):
                raise result
            return job.finish(result)

        found[run] = command.attempt(jobs[run], step)

    places = [run for run, job in enumerate(jobs) if job.state == "running"]
    try:
        # the first one here, so that forks have what is imported and remembered for it
        for some, workers in ((places[:1], 1), (places[1:], _writers(group))):
            with closing(results_of(written, some, workers)) as results:
                for run, result in results:
                    done(run, result)
    except BaseException:
        _interrupt(jobs)
        raise
    return found


def _writers(group: Group) -> int:
    """Processes that may write at once: one where runs or loggers must not be forked."""
    study, piece, jobs = group
    config, point = jobs[0].config, int(piece.points[0])
    if config.trainer.accelerator != "cpu":
        return 1
    if outputs_of(config).dashboard:
        try:
            made = [get_class(node["_target_"]) for node in config.logger.values()]
        except Exception:  # whatever stands there; `report_alone` refuses it, job by job
            return 1
        if any(logger is not DashboardLogger for logger in made):
            return 1
    return study.points.advance.at(point).options.num_workers


def _interrupt(jobs: Sequence[Job]) -> None:
    """Record that those which have begun were asked to stop."""
    Interrupted.acknowledge()
    for job in jobs:
        if job.state == "running":
            job.interrupt()

"""``hydra/launcher=vectorized``: the jobs of a multirun, trained together where one engine can.

Each job has its directory, its status and its files, as if it had been run alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.command import Command
from dln_momentum.cli.job import Job
from dln_momentum.cli.job_configs import JobConfigs
from dln_momentum.cli.metric import metric_of
from dln_momentum.cli.status import Lock
from dln_momentum.config.reading import leaves
from dln_momentum.outputs.grid import Axis, Grid
from dln_momentum.sweeps.assembly import Piece, Study, pieces_of
from dln_momentum.sweeps.axes import SECTIONS, name_of
from dln_momentum.sweeps.points import Points
from dln_momentum.training.callbacks import Monitor

AT_ONCE = 512
"""Jobs that are begun before the first of them is finished; each holds a lock, an open file."""

Result = dict[str, Any]


def launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    together: bool = True,
) -> list[JobReturn]:
    """Do the jobs of a multirun.

    Args:
        context: Hydra's, which composes the jobs' configs.
        task: the function of one of our commands.
        config: of the multirun.
        job_overrides: of each job.
        first: the number of the first job.
        together: whether to train together what one engine can carry; else in turn.

    Raises:
        HydraException: for a task that is not one of our commands.
    """
    command = getattr(task, "command", None)
    if not isinstance(command, Command):
        raise HydraException("hydra/launcher=vectorized is for dln-train, dln-flow and their like")
    setup_globals()
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    before = HydraConfig.instance().cfg
    try:
        return _launched(command, context, config, job_overrides, first, together=together)
    finally:
        HydraConfig.instance().cfg = before


def _launched(
    command: Command,
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    together: bool,
) -> list[JobReturn]:
    """As `launch`; leaves Hydra with the config of the last job."""
    folder = Path(str(config.hydra.sweep.dir)).absolute() / ".vectorized"
    configs, returned = JobConfigs(context, config), []
    at_once = AT_ONCE if together else 1
    for start in range(0, len(job_overrides), at_once):
        jobs = [
            command.job_of(configs.composed(words, first + number))
            for number, words in enumerate(job_overrides[start : start + at_once], start)
        ]
        found = _together(command, jobs, folder) if together else {}
        left = [p for p, job in enumerate(jobs) if found.get(p) is None and not job.state]
        # all before the first: it may wait for a process that waits for another of them
        for place in left:
            jobs[place].release()
        for place, job in enumerate(jobs):
            if place in left:
                found[place] = command.among_others(job)
            value = metric_of(job.config, found.get(place))
            returned.append(JobReturn(cfg=job.config, status=JobStatus.COMPLETED,
                                      _return_value=value))  # fmt: skip
    return returned


def _together(command: Command, jobs: Sequence[Job], folder: Path) -> dict[int, Result | None]:
    """What the jobs that can be trained together finish with, by place; None where one fails."""
    found: dict[int, Result | None] = {}
    for places in _alike(command, jobs):
        waiting = []
        for place in places:
            if Lock(jobs[place].directory).held_by_any():
                continue  # another process does it, or this very multirun: it is waited for later
            found[place] = command.attempt(jobs[place], command.prepare)
            # one with a checkpoint of its own goes on from there
            if not jobs[place].state and found[place] is None and not jobs[place].checkpoint:
                waiting.append(place)
        waiting = [place for place in waiting if _has_numbers(jobs[place].config)]
        study = _study([jobs[place] for place in waiting])
        if study is None:
            continue
        for piece in study.pieces:
            own = [waiting[point] for point in piece.points]
            results = _train(command, study, piece, [jobs[place] for place in own], folder)
            found |= dict(zip(own, results, strict=True))
    return found


def _alike(command: Command, jobs: Sequence[Job]) -> list[list[int]]:
    """The places of jobs of dln-train that differ in values of `SECTIONS` alone."""
    groups: dict[str, list[int]] = {}
    for place, job in enumerate(jobs) if command.app == "train" else ():
        values = OmegaConf.to_container(job.config, resolve=False)
        assert isinstance(values, dict)
        others = {key: value for key, value in values.items() if key not in SECTIONS}
        keys = [key for key in leaves(job.config) if key.partition(".")[0] in SECTIONS]
        groups.setdefault(repr((others, keys)), []).append(place)
    return list(groups.values())


def _study(jobs: Sequence[Job]) -> Study | None:
    """The jobs as the points of a grid whose only axis is all that varies; None if they are not.

    A config that is refused is no part of it: its job, done alone, says why. Callbacks other than
    monitors see the median of all runs, by which they may end them: they are for one run.
    """
    if len(jobs) < 2 or jobs[0].config.resume is not None:
        return None
    values: dict[str, list[Any]] = {"seed": [job.config.seed for job in jobs]}
    for key in leaves(jobs[0].config):
        if key.partition(".")[0] in SECTIONS:
            each = [_plain(OmegaConf.select(job.config, key)) for job in jobs]
            if any(repr(value) != repr(each[0]) for value in each):
                values[name_of(key)] = each
    points = Points(jobs[0].config, Grid([Axis(values)]))
    try:
        if not points.valid.any():
            return None
        monitors = _check_whole(jobs[int(points.valid.argmax())])
    except Exception:  # whatever a file of data causes: each job says it of itself
        return None
    if not all(isinstance(callback, Monitor) for callback in monitors):
        return None
    return Study(points, list(pieces_of(points, AT_ONCE)))


def _has_numbers(config: DictConfig) -> bool:
    """Whether seed, speed and rates are numbers that a run may have, which no `Part` checks."""
    from dln_momentum.cli.setup import Reader, momentum_of, seed_of, speed_of

    reader = Reader(config)
    for read in (seed_of, speed_of, momentum_of):
        read(reader)
    return not reader.errors


def _check_whole(job: Job) -> list[Any]:
    """Check the sections that all jobs share, and that no key is unknown.

    Returns:
        The callbacks.

    Raises:
        InputError: for what is not allowed.
    """
    from dln_momentum.cli.fitting import monitors_of
    from dln_momentum.cli.setup import build

    build(job.config)
    return monitors_of(job.config)


def _train(
    command: Command, study: Study, piece: Piece, jobs: Sequence[Job], folder: Path
) -> list[Result | None]:
    """Train the jobs of a piece together, and finish each."""
    from dln_momentum.cli.fitting import monitors_of, report_alone
    from dln_momentum.cli.run_files import TrainedRuns
    from dln_momentum.cli.train import write_figure
    from dln_momentum.outputs.provenance import digest
    from dln_momentum.training.resuming import newest_checkpoint
    from dln_momentum.training.trainer import fit

    config = study.points.config_at(int(piece.points[0]))
    # named by what is trained, so that the same multirun finds it after an interruption
    own = folder / digest([], " ".join(job.config_hash for job in jobs))
    resume = newest_checkpoint(own)
    try:
        module = study.setup(piece).module(resume=resume)
    except Exception:  # each job says it of itself
        return [None] * len(jobs)
    for job in jobs:
        command.attempt(job, Job.begin)
    try:
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
    except Exception as error:
        for job in jobs:
            command.attempt(job, _raising(error))
        return [None] * len(jobs)
    except BaseException:
        for job in jobs:
            job.interrupt()
        raise

    def write(run: int, job: Job) -> Result:
        summary, history = runs.write(run, job)
        report_alone(job, history, summary, write_figure(job, history, summary))
        return job.finish(summary)

    def finish(run: int) -> Result | None:
        return command.attempt(jobs[run], lambda job: write(run, job))

    found = [finish(run) if job.state == "running" else None for run, job in enumerate(jobs)]
    shutil.rmtree(own, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return found


def _raising(error: Exception) -> Callable[[Job], None]:
    def step(job: Job) -> None:
        raise error

    return step


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

"""``hydra/launcher=vectorized``: the jobs of a multirun, trained together where one engine can.

Each job has its directory, its status and its files, as if it had been run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from dln_momentum.cli.command import Command
from dln_momentum.cli.job_configs import JobConfigs
from dln_momentum.cli.metric import metric_of
from dln_momentum.cli.process import import_lightning

AT_ONCE = 512
"""Jobs that are begun before the first of them is finished; each holds a lock, an open file."""


def launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    together: bool,
    configs: JobConfigs | None,
) -> list[JobReturn]:
    """Do the jobs of a multirun.

    Args:
        context: Hydra's, which composes the jobs' configs.
        task: the function of one of our commands.
        config: of the multirun.
        job_overrides: of each job.
        first: the number of the first job.
        together: whether to train together what one engine can carry; else in turn.
        configs: where the sweeper has composed the kinds of these jobs, that.

    Raises:
        HydraException: for a task that is not one of our commands.
    """
    command = getattr(task, "command", None)
    if not isinstance(command, Command):
        raise HydraException("hydra/launcher=vectorized is for dln-train, dln-flow and their like")
    setup_globals()
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    before = HydraConfig.instance().cfg
    folder = Path(str(config.hydra.sweep.dir)).absolute() / ".vectorized"
    configs = configs or JobConfigs(context, config)
    try:
        return _launched(command, configs, job_overrides, first, folder if together else None)
    finally:
        HydraConfig.instance().cfg = before


def _launched(
    command: Command,
    configs: JobConfigs,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    folder: Path | None,
) -> list[JobReturn]:
    """As `launch`, in turn without a folder; leaves Hydra with the config of the last job."""
    returned = []
    at_once = AT_ONCE if folder is not None else 1
    for start in range(0, len(job_overrides), at_once):
        jobs = [
            command.job_of(configs.composed(words, first + number))
            for number, words in enumerate(job_overrides[start : start + at_once], start)
        ]
        found = {}
        if folder is not None and command.app == "train":
            import_lightning()
            # Lightning and torch, which other commands may do without
            from dln_momentum.sweeps.grouping import do_together

            found = do_together(command, jobs, folder)
        left = [p for p, job in enumerate(jobs) if found.get(p) is None and not job.state]
        # all before the first: it may wait for a process that waits for another of them
        for place in left:
            jobs[place].release()
        for place, job in enumerate(jobs):
            if place in left:
                found[place] = command.among_others(job)
            value = metric_of(job.given, found.get(place))
            returned.append(JobReturn(status=JobStatus.COMPLETED, _return_value=value))
        if folder is not None and command.app == "train":
            from dln_momentum.sweeps.group import forget

            forget(folder, [jobs[place].config_hash for place, result in found.items() if result])
    return returned

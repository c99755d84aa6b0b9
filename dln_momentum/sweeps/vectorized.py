"""The jobs of a multirun in one process: each in its own directory, with its own status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dln_momentum.cli.command import Command
from dln_momentum.cli.job import Job
from dln_momentum.cli.metric import metric_of


def launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Do the jobs of a multirun, one after the other.

    Args:
        context: Hydra's, which composes the jobs' configs.
        task: the function of one of our commands.
        config: of the multirun.
        job_overrides: of each job.
        first: the number of the first job.

    Raises:
        HydraException: for a task that is not one of our commands.
    """
    command = getattr(task, "command", None)
    if not isinstance(command, Command):
        raise HydraException("hydra/launcher=vectorized is for dln-train, dln-flow and their like")
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = [
        _job(command, context, config, overrides, first + place)
        for place, overrides in enumerate(job_overrides)
    ]
    return [_returned(job, command.among_others(job)) for job in jobs]


def _job(
    command: Command,
    context: HydraContext,
    config: DictConfig,
    overrides: Sequence[str],
    number: int,
) -> Job:
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    return command.job_of(composed)


def _returned(job: Job, found: dict[str, Any] | None) -> JobReturn:
    value = metric_of(job.config, found)
    return JobReturn(cfg=job.config, status=JobStatus.COMPLETED, _return_value=value)

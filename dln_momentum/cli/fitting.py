"""Training in a directory: the loggers and monitors that a config names, and what they are told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.outputs.dashboard_columns import RESULTS, settings_of
from dln_momentum.outputs.files import read_yaml
from dln_momentum.outputs.quantities import group_of
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.board import DashboardLogger
from dln_momentum.training.callbacks import Monitor
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.trainer import fit

if TYPE_CHECKING:
    import xarray as xr

log = logging.getLogger("dln_momentum")

EXTRAS = ("wandb", "mlflow")
"""Packages that a logger may need, each an extra of this one."""


@contextmanager
def fitted(job: Job, module: HeavyBallModule) -> Iterator[list[Logger]]:
    """Begin a job, train its runs to the end, and hand over the loggers for what comes after.

    Raises:
        InputError: for a logger or callback that cannot be made, before the job begins.
    """
    config = job.config
    monitors = monitors_of(config)
    tell_of_costs(module.data.plan)
    with logging_to(job) as loggers:
        fit(
            module,
            job.directory / "checkpoints",
            loggers,
            monitors=monitors,
            accelerator=config.trainer.accelerator,
            checkpoint_seconds=config.trainer.checkpoint_seconds,
            progress=config.trainer.progress,
            resume=job.checkpoint or config.resume,
            last_checkpoint=outputs_of(config).checkpoint,
        )
        yield loggers


def tell_of_costs(plan: RecordPlan) -> None:
    """Warn of keys whose cost beside the steps is long, before anything begins."""
    for line in plan.costs():
        log.warning("trainer.%s", line.replace("cuts max_steps", "cuts trainer.max_steps"))


@contextmanager
def logging_to(job: Job) -> Iterator[list[Logger]]:
    """Make the loggers of a job, begin it, and close them whatever happens.

    Raises:
        InputError: for a logger that cannot be made, before the job begins.
    """
    loggers = loggers_of(job)
    job.begin()
    with _closed(loggers):
        yield loggers


@contextmanager
def _closed(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close loggers at the end, whatever happens."""
    try:
        yield
    finally:
        for logger in loggers:
            logger.finalize("success")


def loggers_of(job: Job, config: DictConfig | None = None) -> list[Logger]:
    """The loggers of a job: those of its config, or of another one that names the same.

    Raises:
        InputError: for one that cannot be made.
    """
    if not outputs_of(job.given).dashboard:
        return []
    return _made(config or job.config, "logger", Logger, save_dir=str(job.directory))


def monitors_of(config: DictConfig) -> list[pl.Callback]:
    """The callbacks that a config names; without a history none of those that record into it.

    Raises:
        InputError: for one that cannot be made.
    """
    found: list[pl.Callback] = _made(config, "callbacks", pl.Callback)
    if outputs_of(config).history:
        return found
    return [callback for callback in found if not isinstance(callback, Monitor)]


def report(
    loggers: Sequence[Logger],
    job: Job,
    history: xr.Dataset | None,
    summary: Mapping[str, Any],
    figure: Path | None = None,
) -> None:
    """Tell every logger how a run ended: its settings beside its results."""
    results = {f"{group_of(name)}/{name}": summary.get(name) for name in RESULTS}
    for logger in loggers:
        if isinstance(logger, DashboardLogger):
            logger.finish(history, summary, job.text, figure)
        else:
            logger.log_hyperparams(settings_of(summary, read_yaml(job.text)))
            found = {name: float(value) for name, value in results.items() if value is not None}
            logger.log_metrics(found, step=summary["steps"])


def report_alone(
    job: Job,
    history: xr.Dataset | None,
    summary: Mapping[str, Any],
    figure: Path | None,
    config: DictConfig,
) -> None:
    """Tell the loggers of a job that was trained together with others how it ended.

    ``config`` is that of any of them: they have the same loggers.
    """
    loggers = loggers_of(job, config)
    with _closed(loggers):
        report(loggers, job, history, summary, figure)


def report_sweep(
    loggers: Sequence[Logger], job: Job, results: xr.Dataset, summary: Mapping[str, Any]
) -> None:
    """Write the dashboard of a sweep, where there is one to write."""
    for logger in loggers:
        if isinstance(logger, DashboardLogger):
            rows = logger.finish_sweep(results, summary, job.text, Path(job.config.paths.root))
            if rows is None:
                log.info("dashboard: no HPARAMS rows, there are too many runs")
            elif rows.parent != job.directory:
                log.info("dashboard: HPARAMS of the runs by tensorboard --logdir %s", rows)


def _made(config: DictConfig, section: str, kind: type, **defaults: Any) -> list[Any]:
    """The objects of a section, each named by its ``_target_``; a null key takes its default."""
    found, errors = [], list[str]()
    for name, node in config[section].items():
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            errors.append(f"{section}.{name} must have a key _target_, the class to make")
            continue
        if line := _no_class(f"{section}.{name}", node["_target_"], kind):
            errors.append(line)
            continue
        given = {key: value for key, value in defaults.items() if node.get(key, "") is None}
        if node["_target_"].endswith("MLFlowLogger"):
            # from 3.17 on MLflow wants to be told that files are meant, and not a database
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            given = {key: f"{value}/mlruns" for key, value in given.items()}
        try:
            made = instantiate(node, **given)
        except (InstantiationException, ModuleNotFoundError) as error:
            errors.append(_reason(f"{section}.{name}", error))
            continue
        found.append(made)
    raise_if_any(errors)
    return found


def _no_class(key: str, target: Any, kind: type) -> str:
    """What is wrong with a ``_target_``; it is called only if it is a class of this kind.

    A function that makes one is refused: what it makes is known only once it has been called, and a
    config, which may be somebody else's, could call anything.
    """
    try:
        made: Any = get_object(target)
        if not isinstance(made, type):
            what = "a function" if callable(made) else f"of type {type(made).__name__}"
            return (
                f"{key}._target_ = {target!r} must be the path of a {kind.__name__}, a class: it "
                f"is {what}; name the class, with its arguments as further keys of {key}"
            )
    except Exception as error:  # whatever the import of a module of the user's own raises
        if isinstance(error.__cause__, ModuleNotFoundError):
            return _reason(key, error)
        said = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        reason = f": {said[0]}" if said else ""
        return f"{key}._target_ = {target!r} must be the path of a {kind.__name__}{reason}"
    if not issubclass(made, kind):
        return f"{key}._target_ = {target!r} must be the path of a {kind.__name__}"
    return ""


def _reason(key: str, error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, InputError):
        return f"{key}: {cause}"
    missing = [name for name in EXTRAS if name in str(cause) or key.endswith(name)]
    if missing and isinstance(cause, ModuleNotFoundError):
        (name, *_) = missing
        return f"{key} needs the package {name}: pip install 'dln-momentum[{name}]'"
    return f"{key} cannot be made: {str(cause).splitlines()[0]}"

"""Training in a directory: the loggers and monitors that a config names, and what they are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.job import Job
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.outputs.plotting import picture
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.trainer import fit

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
        )
        yield loggers


@contextmanager
def logging_to(job: Job) -> Iterator[list[Logger]]:
    """Make the loggers of a job, begin it, and close them whatever happens.

    Raises:
        InputError: for a logger that cannot be made, before the job begins.
    """
    loggers: list[Logger] = _made(job.config, "logger", Logger, save_dir=str(job.directory))
    job.begin()
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.finalize("success")


def monitors_of(config: DictConfig) -> list[pl.Callback]:
    """The callbacks that a config names.

    Raises:
        InputError: for one that cannot be made.
    """
    return _made(config, "callbacks", pl.Callback)


def log_results(
    loggers: Sequence[Logger],
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    step: int,
    figure: Path | None = None,
) -> None:
    """Put settings beside results, and the figure onto a dashboard that shows figures."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            if figure is not None:
                logger.experiment.add_image("overview", picture(figure), step, dataformats="HWC")
            if settings:
                logger.log_hyperparams(dict(settings), dict(results))
        elif settings:
            logger.log_hyperparams(dict(settings))
            logger.log_metrics(dict(results), step=step)


def _made(config: DictConfig, section: str, kind: type, **defaults: Any) -> list[Any]:
    """The objects of a section, each named by its ``_target_``; a null key takes its default."""
    found, errors = [], list[str]()
    for name, node in config[section].items():
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            errors.append(f"{section}.{name} must have a key _target_, the class to make")
            continue
        given = {key: value for key, value in defaults.items() if node.get(key, "") is None}
        try:
            made = instantiate(node, **given)
        except InstantiationException as error:
            errors.append(_reason(f"{section}.{name}", error))
            continue
        except ModuleNotFoundError as error:
            errors.append(_reason(f"{section}.{name}", error))
            continue
        if not isinstance(made, kind):
            errors.append(f"{section}.{name} must make a {kind.__name__}, is {made!r}")
        found.append(made)
    raise_if_any(errors)
    return found


def _reason(key: str, error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, InputError):
        return f"{key}: {cause}"
    missing = [name for name in EXTRAS if name in str(cause) or key.endswith(name)]
    if missing and isinstance(cause, ModuleNotFoundError):
        (name, *_) = missing
        return f"{key} needs the package {name}: pip install 'dln-momentum[{name}]'"
    return f"{key} cannot be made: {str(cause).splitlines()[0]}"

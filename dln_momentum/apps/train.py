"""One run of ``dln-train``: from a config to a directory of results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig

from dln_momentum.cli.assembly import Setup, build
from dln_momentum.config import Train
from dln_momentum.outputs.files import write_dataset, write_json
from dln_momentum.outputs.history import run_history, with_targets
from dln_momentum.outputs.plotting import overview, picture, save
from dln_momentum.outputs.provenance import data_hash, file_attributes, provenance
from dln_momentum.outputs.report import print_report
from dln_momentum.outputs.summary import end_of_one_run, minimiser
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.resuming import check_same_run, read_checkpoint
from dln_momentum.training.trainer import fit

SETTINGS = ("gamma", "beta", "lam", "eps", "n", "d", "alpha", "seed", "batch_size")
RESULTS = ("train_loss", "recovery_error", "l1_norm", "balancedness_l1", "sign_changes")


def train(config: DictConfig, directory: Path, text: str) -> dict[str, Any]:
    """Train one network and write everything about it into its directory.

    Args:
        config: the composed config.
        directory: the run's own; made if it is not there.
        text: the config as written to ``config.yaml``.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    setup = build(config)
    module = make_module(setup)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(text)
    logger = TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False)
    started = time.perf_counter()
    try:
        fit(module, directory, logger, **trainer_keys(setup.config))
        summary = _summary(module, setup, time.perf_counter() - started)
        _write_outputs(module, directory, logger, summary, text)
    finally:
        logger.finalize("success")
    print_report(summary, directory)
    return summary


def make_module(setup: Setup, *, trajectories: bool = True) -> HeavyBallModule:
    """The Lightning module of a setup, its data and schedule included.

    Raises:
        InputError: for a checkpoint to resume from that is of another run.
    """
    keys, resume = setup.config.trainer, setup.config.resume
    schedule = RecordPlan(keys.max_steps, keys.records, keys.block_size, keys.checkpoint_every)
    data = BlockDataModule(setup.problems, schedule, setup.batches, setup.label_noise)
    module = HeavyBallModule(
        setup.net,
        setup.momentum.gamma,
        setup.momentum.beta,
        data,
        options=setup.options,
        gradient=keys.gradient,
        speed=setup.config.model.speed,
        trajectories=trajectories,
    )
    if resume is not None:
        # Lightning reads it too, but only once directories have been made
        check_same_run(read_checkpoint(resume), module.identity, keys.max_steps)
    return module


def trainer_keys(config: Train) -> dict[str, Any]:
    """What `fit` takes of a config."""
    keys = config.trainer
    return {
        "accelerator": keys.accelerator,
        "checkpoint_every": keys.checkpoint_every,
        "progress": keys.progress,
        "resume": config.resume,
    }


def _summary(module: HeavyBallModule, setup: Setup, seconds: float) -> dict[str, Any]:
    snapshot = module.snapshot()
    assert snapshot is not None, "dln-train trains diagonal networks"
    config, problem = setup.config, setup.problem
    # max(|u|, |v|) = (|w_+| + |w_-|)/2
    scale = float(snapshot.w_start.abs().sum(0).max() / 2)
    return {
        "kind": "train",
        "status": module.status_labels[0],
        "seconds": seconds,
        "data": problem.name,
        "n": problem.n,
        "d": problem.d,
        "rank": problem.row_space.rank,
        "alpha": getattr(config.model, "alpha", scale),
        "seed": config.seed,
        "batch_size": config.data.batch_size or problem.n,
        "path_sums": config.engine.path_sums,
        **end_of_one_run(snapshot, problem),
        **provenance(data_hash(problem)),
    }


def _write_outputs(
    module: HeavyBallModule,
    directory: Path,
    logger: TensorBoardLogger,
    summary: dict[str, Any],
    text: str,
) -> None:
    """Write the history, the figure, the dashboard's extras and, last of all, the summary."""
    snapshot = module.snapshot()
    assert snapshot is not None
    problem, recorded = module.data.problem, module.history
    target = problem.row_space.target(problem.y)
    limit = minimiser(problem, target, snapshot.balancedness, snapshot.log_init)
    history = run_history(recorded.columns(), recorded.steps, snapshot)
    history = with_targets(history, problem, limit[0].cpu())
    history.attrs = file_attributes(summary, text)
    write_dataset(directory / "history.nc", history)
    figure = overview(history, summary)
    save(figure, directory / "overview.png")
    image = picture(directory / "overview.png")
    logger.experiment.add_image("overview", image, summary["steps"], dataformats="HWC")
    metrics = {f"result/{name}": float(summary[name]) for name in RESULTS}
    logger.log_hyperparams({name: summary[name] for name in SETTINGS}, metrics)
    write_json(directory / "summary.json", summary)

"""One run of ``dln-sweep``: from a config to one file with every run of a grid."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import xarray as xr
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from rich.progress import Progress

from dln_momentum.apps.train import make_module, trainer_keys
from dln_momentum.cli.assembly import Setup
from dln_momentum.config import Sweep
from dln_momentum.engine import Status
from dln_momentum.outputs.files import write_dataset, write_json
from dln_momentum.outputs.plotting import picture, save
from dln_momentum.outputs.provenance import file_attributes, provenance
from dln_momentum.outputs.sweep_figure import overview
from dln_momentum.outputs.sweep_report import QUANTITIES, judged, print_report
from dln_momentum.sweeps.assembly import build
from dln_momentum.sweeps.dataset import dataset
from dln_momentum.sweeps.grid import Grid
from dln_momentum.training.resuming import read_checkpoint
from dln_momentum.training.trainer import fit, shows_progress

log = logging.getLogger("dln_momentum")


def sweep(config: DictConfig, directory: Path, text: str) -> dict[str, Any]:
    """Train every run of a grid and write everything about them into one directory.

    Args:
        config: the composed config.
        directory: the sweep's own; made if it is not there.
        text: the config as written to ``config.yaml``.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    setup, grid = build(config)
    assert isinstance(setup.config, Sweep)
    module = make_module(setup, trajectories=setup.config.sweep.trajectories)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(text)
    logger = TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False)
    started = time.perf_counter()
    try:
        fit(module, directory, logger, **trainer_keys(setup.config))
        trained = time.perf_counter()
        log.info("trained in %.1f s; now the minimisers of every run", trained - started)
        with Progress(disable=not shows_progress(setup.config.trainer.progress)) as bar:
            task = bar.add_task("minimisers", total=int(grid.valid.sum()))
            results = dataset(module, grid, lambda runs: bar.advance(task, runs))
        seconds = {
            "seconds_training": trained - started,
            "seconds_minimisers": time.perf_counter() - trained,
        }
        summary = _summary(setup, grid, results, seconds)
        results = results.assign_attrs(_settings(setup) | file_attributes(summary, text))
        _write_outputs(results, directory, logger, summary)
    finally:
        logger.finalize("success")
    print_report(results, summary, directory)
    return summary


def _summary(
    setup: Setup, grid: Grid, results: xr.Dataset, seconds: dict[str, float]
) -> dict[str, Any]:
    labels = results["status"].to_numpy()
    counts = {status.label: int((labels == status.label).sum()) for status in Status}
    run_steps = int(results["steps"].sum())
    taken_now = run_steps - _steps_before(setup.config.resume)
    among, described = judged(results)
    medians = results[list(QUANTITIES)].where(among).median()
    return {
        "kind": "sweep",
        "status": "finished",
        "endings": {label: count for label, count in counts.items() if count},
        "runs": grid.size,
        "axes": dict(zip(grid.dims, grid.shape, strict=True)),
        "seconds": sum(seconds.values()),
        **seconds,
        "run_steps": run_steps,
        "run_steps_per_second": taken_now / seconds["seconds_training"],
        **_settings(setup),
        "medians_over": described,
        "medians": {name: float(value) for name, value in medians.items()},
        **provenance(*results["data_hash"].to_numpy().flat),
    }


def _steps_before(resume: str | None) -> int:
    """Over all runs, the steps of the checkpoint that a sweep was resumed from."""
    if resume is None:
        return 0
    return int(read_checkpoint(resume)["stepper"]["engine"]["steps"].sum())


def _settings(setup: Setup) -> dict[str, Any]:
    problem = setup.problem
    return {
        "data": setup.data_name,
        "n": problem.n,
        "d": problem.d,
        "batch_size": setup.config.data.batch_size or problem.n,
        "path_sums": setup.config.engine.path_sums,
    }


def _write_outputs(
    results: xr.Dataset, directory: Path, logger: TensorBoardLogger, summary: dict[str, Any]
) -> None:
    """Write the results, the figure, the dashboard's copy of it and, last of all, the summary."""
    write_dataset(directory / "results.nc", results)
    figure = overview(results)
    if figure is not None:
        for suffix in (".png", ".pdf"):
            save(figure, directory / f"overview{suffix}")
        image = picture(directory / "overview.png")
        logger.experiment.add_image("overview", image, dataformats="HWC")
    write_json(directory / "summary.json", summary)

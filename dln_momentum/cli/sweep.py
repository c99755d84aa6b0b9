"""``dln-sweep``: train every network of a grid at once and keep their numbers in one file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.job import Job, command
from dln_momentum.cli.process import run_and_leave

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from dln_momentum.cli.setup import Setup
    from dln_momentum.sweeps.grid import Grid

log = logging.getLogger("dln_momentum")


def sweep(job: Job) -> dict[str, Any]:
    """Train every run of a grid and write everything about them into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    from rich.progress import Progress

    from dln_momentum.cli.fitting import fitted, log_results
    from dln_momentum.outputs.provenance import file_attributes
    from dln_momentum.outputs.sweep_report import print_report
    from dln_momentum.sweeps.assembly import build
    from dln_momentum.sweeps.dataset import dataset
    from dln_momentum.training.trainer import shows_progress

    setup, grid = build(job.config)
    module = setup.module(trajectories=bool(job.config.sweep.trajectories))
    with fitted(job, module) as loggers:
        training = job.seconds
        log.info("trained in %.1f s; now the minimisers of every run", training)
        with Progress(disable=not shows_progress(job.config.trainer.progress)) as bar:
            task = bar.add_task("minimisers", total=int(grid.valid.sum()))
            results = dataset(module, grid, lambda runs: bar.advance(task, runs))
        seconds = {"seconds_training": training, "seconds_minimisers": job.seconds - training}
        summary = _summary(setup, grid, results, seconds)
        results = results.assign_attrs(_settings(setup) | file_attributes(summary, job.text))
        figure = _write_results(job, results)
        log_results(loggers, {}, {}, 0, figure)
        job.finish(summary)
    print_report(results, summary, job.directory)
    return summary


def _summary(
    setup: Setup, grid: Grid, results: xr.Dataset, seconds: dict[str, float]
) -> dict[str, Any]:
    from dln_momentum.engine import Status
    from dln_momentum.outputs.provenance import provenance
    from dln_momentum.outputs.sweep_report import QUANTITIES, judged

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
    from dln_momentum.training.resuming import read_checkpoint

    if resume is None:
        return 0
    return int(read_checkpoint(resume)["stepper"]["engine"]["steps"].sum())


def _settings(setup: Setup) -> dict[str, Any]:
    problem = setup.problem
    return {
        "data": setup.data_name,
        "n": problem.n,
        "d": problem.d,
        "batch_size": setup.config.sampling.batch_size or problem.n,
        "path_sums": setup.config.engine.path_sums,
    }


def _write_results(job: Job, results: xr.Dataset) -> Path | None:
    """Write the results and their figure, where there is anything to draw."""
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.plotting import save
    from dln_momentum.outputs.sweep_figure import overview

    write_dataset(job.directory / "results.nc", results)
    figure = overview(results)
    if figure is None:
        return None
    for suffix in (".png", ".pdf"):
        save(figure, job.directory / f"overview{suffix}")
    return job.directory / "overview.png"


main = command("sweep", sweep)

if __name__ == "__main__":
    run_and_leave(main)

"""``dln-train``: train one network and leave its numbers, history, figure and dashboard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.cli.process import import_lightning, run_and_leave
from dln_momentum.errors import raise_if_any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import xarray as xr

    from dln_momentum.cli.setup import Setup


def train(job: Job) -> dict[str, Any]:
    """Train one network and write everything about it into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    import_lightning()
    from dln_momentum.cli.fitting import fitted, report
    from dln_momentum.cli.run_files import TrainedRuns
    from dln_momentum.cli.setup import build
    from dln_momentum.outputs.report import print_report

    setup = build(job.config)
    raise_if_any(size_errors(setup))
    module = setup.module(resume=job.checkpoint or job.config.resume)
    with fitted(job, module) as loggers:
        summary, history = TrainedRuns(module).write(0, job)
        figure = write_figure(job, history, summary)
        report(loggers, job, history, summary, figure)
        job.finish(summary)
    print_report(summary, job.directory, history)
    return summary


def size_errors(setup: Setup) -> Iterator[str]:
    """What is wrong with a run that does not fit into memory, its records included."""
    from dln_momentum.engine.family import is_plain
    from dln_momentum.engine.footprint import Footprint

    problem, plan = setup.problem, setup.plan
    kept = outputs_of(setup.config).history
    alone = Footprint(
        runs=1,
        n=problem.n,
        d=problem.d,
        test_rows=0 if problem.X_test is None else len(problem.X_test),
        path_sums=setup.options.path_sums,
        plain=is_plain(setup.method, problem),
    )
    whole = replace(alone, records=len(plan.recorded), trajectories=True) if kept else alone
    if whole.gigabytes > 2 * alone.gigabytes:
        yield from whole.errors(f"trainer.records = {plan.records}")
    else:
        yield from whole.errors(f"data: d = {problem.d}")


def write_figure(job: Job, history: xr.Dataset | None, summary: Mapping[str, Any]) -> Path | None:
    """Draw the run, if everything that the figure needs was recorded."""
    needed = {"balancedness", "s_plus", "theta", "distance_to_limit"}
    if not outputs_of(job.given).figure or history is None or not needed <= set(history):
        return None
    from dln_momentum.outputs.figure_files import save
    from dln_momentum.outputs.plotting import overview

    figure = job.directory / "overview.png"
    save(overview(history, summary), figure)
    return figure


main = command("train", train)

if __name__ == "__main__":
    run_and_leave(main)

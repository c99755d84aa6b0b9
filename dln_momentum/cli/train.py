"""``dln-train``: train one network and leave its numbers, history, figure and dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.cli.process import import_torchmetrics, run_and_leave

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr


def train(job: Job) -> dict[str, Any]:
    """Train one network and write everything about it into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    import_torchmetrics()
    from dln_momentum.cli.fitting import fitted, report
    from dln_momentum.cli.run_files import TrainedRuns
    from dln_momentum.cli.setup import build
    from dln_momentum.outputs.report import print_report

    setup = build(job.config)
    module = setup.module(resume=job.checkpoint or job.config.resume)
    with fitted(job, module) as loggers:
        summary, history = TrainedRuns(module).write(0, job)
        figure = write_figure(job, history, summary)
        report(loggers, job, history, summary, figure)
        job.finish(summary)
    print_report(summary, job.directory)
    return summary


def write_figure(job: Job, history: xr.Dataset | None, summary: Mapping[str, Any]) -> Path | None:
    """Draw the run, if everything that the figure needs was recorded."""
    needed = {"balancedness", "s_plus", "theta", "distance_to_limit"}
    if not outputs_of(job.config).figure or history is None or not needed <= set(history):
        return None
    from dln_momentum.outputs.plotting import overview, save

    figure = job.directory / "overview.png"
    save(overview(history, summary), figure)
    return figure


main = command("train", train)

if __name__ == "__main__":
    run_and_leave(main)

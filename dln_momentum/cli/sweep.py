"""``dln-sweep``: train every network of a grid and keep their numbers in one file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.process import import_lightning, run_and_leave
from dln_momentum.errors import raise_if_any

if TYPE_CHECKING:
    import xarray as xr

    from dln_momentum.sweeps.assembly import Study


FIGURE = ("dln_momentum.outputs.sweep_figure", "matplotlib.backends.backend_pdf")
"""What takes long to import and is not needed before the runs have ended."""


def sweep(job: Job) -> dict[str, Any]:
    """Train every run of a grid and write everything about them into the directory of the job.

    The runs are trained in pieces, and what is done is kept in ``pieces/``, so that an interrupted
    sweep goes on where it was. A shard trains its share of the pieces.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    import_lightning()
    from dln_momentum.cli.fitting import logging_to, monitors_of, report_sweep, tell_of_costs
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.provenance import file_attributes
    from dln_momentum.outputs.sweep_report import print_report
    from dln_momentum.sweeps.assembly import build, pieces_of_shard
    from dln_momentum.sweeps.dataset import dataset
    from dln_momentum.sweeps.forked import beside
    from dln_momentum.sweeps.training import check_resume, trained

    study = build(job.config)
    mine = pieces_of_shard(job.config, study)
    check_resume(job, study, mine)
    raise_if_any(_of_one_run(job, monitors_of(job.config)))
    tell_of_costs(study.points.advance.at(int(study.pieces[0].points[0])).plan)
    with logging_to(job) as loggers:
        imported = set(FIGURE) <= set(sys.modules)
        pieces = trained(job, study, mine, meanwhile=None if imported else _import_figure)
        results = dataset(study, pieces)
        summary = _summary(job, study, results, pieces)
        results = results.assign_attrs(_settings(study) | file_attributes(summary, job.text))

        def write() -> None:
            write_dataset(job.directory / "results.nc", results)
            report_sweep(loggers, job, results, summary)

        with beside(write):
            _draw(job, results)
        job.finish(summary)
    print_report(results, summary, job.directory)
    return summary


def _of_one_run(job: Job, callbacks: Sequence[Any]) -> Iterator[str]:
    """Callbacks that would make the results depend on which runs are trained together."""
    from dln_momentum.training.callbacks import Monitor

    for name, callback in zip(job.config.callbacks, callbacks, strict=True):
        if not isinstance(callback, Monitor):
            yield (
                f"callbacks.{name} = {type(callback).__name__} acts on the median of the runs that "
                "are trained together; a sweep takes monitors only, a multirun any callback"
            )


def _summary(
    job: Job, study: Study, results: xr.Dataset, pieces: Sequence[xr.Dataset]
) -> dict[str, Any]:
    from dln_momentum.engine import Status
    from dln_momentum.outputs.provenance import provenance
    from dln_momentum.outputs.quantities import NOT_RUN
    from dln_momentum.outputs.sweep_report import QUANTITIES, judged

    labels = results["status"].to_numpy()
    counts = {name: int((labels == name).sum()) for name in (*_labels(Status), NOT_RUN)}
    among, described = judged(results)
    medians = results[list(QUANTITIES)].where(among).median()
    seconds = _seconds(pieces)
    run_steps = int(results["steps"].sum())
    taken = run_steps - sum(int(piece.attrs["run_steps_before"]) for piece in pieces)
    return {
        "kind": "sweep",
        "status": "finished",
        "endings": {label: count for label, count in counts.items() if count},
        "runs": study.grid.size - counts[NOT_RUN] - counts[Status.INVALID.label],
        "grid_size": study.grid.size,
        "pieces": len(pieces),
        "axes": dict(zip(study.grid.dims, study.grid.shape, strict=True)),
        "seconds": job.seconds,
        **seconds,
        "run_steps": run_steps,
        "run_steps_per_second": taken / seconds["seconds_training"] if pieces else 0.0,
        **_settings(study),
        "medians_over": described,
        "medians": {name: float(value) for name, value in medians.items()},
        **provenance(*results["data_hash"].to_numpy().flat),
    }


def _seconds(pieces: Sequence[xr.Dataset]) -> dict[str, float]:
    """How long pieces were trained and minimisers sought; what goes on at once counts once."""
    times = ("seconds_training", "seconds_minimisers")
    starts = [piece.attrs.get("began", 0.0) for piece in pieces]
    found = {}
    for name in times:
        taken = [float(piece.attrs[name]) for piece in pieces]
        found[name], until = 0.0, -math.inf
        for start, seconds in sorted(zip(starts, taken, strict=True)):
            found[name] += max(0.0, start + seconds - max(start, until))
            until = max(until, start + seconds)
        starts = [start + seconds for start, seconds in zip(starts, taken, strict=True)]
    return found


def _labels(statuses: Any) -> list[str]:
    return [status.label for status in statuses]


def _settings(study: Study) -> dict[str, Any]:
    """What all runs share; None where it differs between them."""
    points, names = study.points, study.grid.names
    problems = [problem for problem in points.data.made if problem is not None]
    sizes = {(problem.n, problem.d) for problem in problems}
    n, d = sizes.pop() if len(sizes) == 1 else (None, None)
    first, others = problems[0].name, len(problems) - 1
    batch = points.config.sampling.batch_size or n
    found = {
        "data": f"{first} and {others} more" if others else first,
        "n": n,
        "d": d,
        "batch_size": None if "batch_size" in names else batch,
        "path_sums": None if "engine_path_sums" in names else points.config.engine.path_sums,
    }
    return {name: value for name, value in found.items() if value is not None}


def _import_figure() -> None:
    """Import what the figure needs; what cannot be imported fails where the figure is drawn."""
    with suppress(ImportError):
        for name in FIGURE:
            import_module(name)


def _draw(job: Job, results: xr.Dataset) -> None:
    """Draw the figure of the results, where there is anything to draw."""
    from dln_momentum.outputs.figure_files import lay_out, save
    from dln_momentum.outputs.sweep_figure import overview
    from dln_momentum.sweeps.forked import beside

    figure = overview(results)
    if figure is None:
        return
    lay_out(figure)
    with beside(partial(save, figure, job.directory / "overview.pdf")):
        save(figure, job.directory / "overview.png")


main = command("sweep", sweep)

if __name__ == "__main__":
    run_and_leave(main)

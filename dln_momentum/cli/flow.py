"""``dln-flow``: follow one network in continuous time and leave its numbers, history and figure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.process import run_and_leave
from dln_momentum.errors import raise_if_any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dln_momentum.cli.setup import Parts, Reader
    from dln_momentum.flows import FlowOptions, FlowPath
    from dln_momentum.outputs.flow_summary import FlowMeasures
    from dln_momentum.problem import Problem


def flow(job: Job) -> dict[str, Any]:
    """Follow one flow and write everything about it into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from dln_momentum.cli.setup import Reader, build_parts, built, flow_options, seed_of
    from dln_momentum.outputs.flow_summary import measure
    from dln_momentum.outputs.provenance import data_hash, provenance
    from dln_momentum.outputs.report import print_flow_report

    config = job.config
    reader = Reader(config)
    options = flow_options(reader)
    reader.errors += _out_of_range(reader)
    parts = build_parts(reader, seed_of(reader))
    raise_if_any(_nothing_to_follow(config, parts))
    job.begin()
    # matrices of this size gain nothing from a second thread
    with threadpool_limits(1):
        path = integrate(config.flow, parts, built(options))
        start = torch.stack([parts.net.w_plus.detach(), parts.net.w_minus.detach()])
        found = measure(parts.problem, path, int(config.flow.records), config.flow.tol, start)
    summary = {
        **_setting(config, parts, path),
        "seconds": job.seconds,
        **found.end,
        **provenance(data_hash(parts.problem)),
    }
    _write_outputs(parts.problem, found, summary, job)
    print_flow_report(summary, job.directory)
    return summary


def _out_of_range(reader: Reader) -> Iterator[str]:
    """What is wrong with lambda, the end and the records, which the solver does not check."""
    from dln_momentum.flows.options import time_errors
    from dln_momentum.record_plan import MOST_RECORDS

    lam, records = reader.value("flow.lam", float), reader.value("flow.records", int)
    time, tol = reader.value("flow.time", float | None), reader.value("flow.tol", float)
    if lam is not None and not 0 <= lam < math.inf:
        yield f"flow.lam = {lam:g} must be finite and >= 0"
    if records is not None and not 2 <= records <= MOST_RECORDS:
        yield f"flow.records = {records} must be in [2, {MOST_RECORDS}]"
    if tol is not None:
        for line in time_errors(math.inf if time is None else time, None, tol):
            yield f"flow.{line}"


def _nothing_to_follow(config: DictConfig, parts: Parts) -> Iterator[str]:
    loss, tol = float(parts.problem.loss(parts.net.theta.detach())), config.flow.tol
    if loss <= tol:
        yield f"the start already interpolates: loss {loss:g}, must be > flow.tol = {tol:g}"
    if config.flow.lam == 0 and parts.velocity is not None:
        speed = config.model.speed
        yield f"model.speed = {speed:g} must be 0: gradient flow has no speed to choose"


def integrate(flow: DictConfig, parts: Parts, options: FlowOptions) -> FlowPath:
    """The flow that a checked section describes, every step of the solver.

    Gradient flow in its direct form: in the mirror form the certificates hold by construction.
    """
    from dln_momentum.flows import gradient_flow, momentum_flow

    start = parts.net.w_plus.detach(), parts.net.w_minus.detach()
    time = math.inf if flow.time is None else float(flow.time)
    if flow.lam == 0:
        return gradient_flow(
            parts.problem, *start, time, form="direct", tol=flow.tol, options=options
        )
    dw_plus, dw_minus = parts.velocity or (None, None)
    return momentum_flow(
        parts.problem, *start, float(flow.lam), time, dw_plus_0=dw_plus, dw_minus_0=dw_minus,
        tol=flow.tol, options=options,
    )  # fmt: skip


def _setting(config: DictConfig, parts: Parts, path: FlowPath) -> dict[str, Any]:
    from dln_momentum.outputs.references import data_settings

    problem = parts.problem
    return {
        "kind": "flow",
        "status": path.status.value,
        "solver": " then ".join(report.method for report in path.solvers),
        "solver_steps": sum(report.steps for report in path.solvers),
        "message": "; ".join(report.message for report in path.solvers if report.message),
        "data": problem.name,
        "n": problem.n,
        "d": problem.d,
        "rank": problem.row_space.rank,
        "alpha": config.model.get("alpha") or float(parts.net.scale.detach().max()),
        "seed": config.seed,
        **data_settings(config),
    }


def _write_outputs(
    problem: Problem, found: FlowMeasures, summary: dict[str, Any], job: Job
) -> None:
    """Write the history, the figure, the dashboard and, last of all, the summary."""
    from dln_momentum.outputs import dashboard
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.history import flow_history
    from dln_momentum.outputs.plotting import overview, save
    from dln_momentum.outputs.provenance import file_attributes

    directory = job.directory
    values = found.scalars | found.coordinates
    history = flow_history(values, found.times, problem, found.minimizer)
    history.attrs = file_attributes(summary, job.text)
    write_dataset(directory / "history.nc", history)
    figure = overview(history, summary)
    save(figure, directory / "overview.png")
    dashboard.write(directory, history, summary, job.text, figure=directory / "overview.png")
    job.finish(summary)


main = command("flow", flow)

if __name__ == "__main__":
    run_and_leave(main)

"""``dln-flow``: follow networks in continuous time and leave their numbers, history and figure.

One lambda gives ``history.nc`` with every certificate, a list of them ``results.nc``
(`dln_momentum.cli.flows`), and ``compare=DIR`` a run beside its flows
(`dln_momentum.cli.comparison`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import check_outputs, outputs_of
from dln_momentum.cli.process import run_and_leave
from dln_momentum.errors import raise_if_any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dln_momentum.cli.flow_sections import Until
    from dln_momentum.cli.setup import Parts
    from dln_momentum.flows import FlowOptions, FlowPath
    from dln_momentum.flows.coefficients import Annealed
    from dln_momentum.outputs.flow_summary import FlowMeasures
    from dln_momentum.problem import Problem


def flow(job: Job) -> dict[str, Any]:
    """Follow one flow or many and write everything about them into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    if job.config.compare is not None:
        from dln_momentum.cli.comparison import compare

        return compare(job)
    from dln_momentum.cli import flow_sections, sections
    from dln_momentum.cli.setup import build_parts, built
    from dln_momentum.config import Reader

    config = job.config
    reader = Reader(config)
    reader.value("compare", str | None)
    options, lam = sections.flow_options(reader), flow_sections.lam_of(reader)
    until = flow_sections.until_of(reader)
    friction = flow_sections.friction_of(reader)
    if lam is not None and until is not None and friction is not None:
        reader.errors += flow_sections.coefficient_errors(lam, friction, until)
    check_outputs(reader)
    parts = build_parts(reader, sections.seed_of(reader))
    lam, until, options = built(lam), built(until), built(options)
    lams = lam if isinstance(lam, list) else [lam] if isinstance(lam, float) else []
    raise_if_any(flow_sections.nothing_to_follow(config, parts, until, lams))
    raise_if_any(flow_sections.infeasible(parts, lam, until, options, built(friction)))
    if isinstance(lam, list):
        from dln_momentum.cli.flows import flows

        return flows(job, parts, lam, until)
    return _one(job, parts, lam, until, options, built(friction))


def _one(
    job: Job,
    parts: Parts,
    lam: float | Annealed,
    until: Until,
    options: FlowOptions,
    friction: float | str,
) -> dict[str, Any]:
    """One flow, with every certificate."""
    import torch
    from threadpoolctl import threadpool_limits

    from dln_momentum.outputs.flow_summary import measure
    from dln_momentum.outputs.provenance import data_hash, provenance
    from dln_momentum.outputs.report import print_flow_report

    config = job.config
    job.begin()
    # matrices of this size gain nothing from a second thread
    with threadpool_limits(1):
        path = integrate(parts, lam, until, options, friction=friction)
        start = torch.stack([parts.net.w_plus.detach(), parts.net.w_minus.detach()])
        records, tol = int(config.flow.records), until.tol or 0.0
        found = measure(parts.problem, path, records, tol, start, until.times)
    summary = {
        "kind": "flow",
        "status": path.status.value,
        # a path at output times may change its method more than once
        "solver": " then ".join(dict.fromkeys(report.method for report in path.solvers)),
        "solver_steps": sum(report.steps for report in path.solvers),
        "message": "; ".join(report.message for report in path.solvers if report.message),
        "friction": path.coefficients.label if path.coefficients else "1",
        **setting(config, parts),
        "seconds": job.seconds,
        **found.end,
        **provenance(data_hash(parts.problem)),
    }
    _write_outputs(parts.problem, found, summary, job)
    print_flow_report(summary, job.directory)
    return summary


def integrate(
    parts: Parts,
    lam: float | Annealed,
    until: Until,
    options: FlowOptions,
    *,
    friction: float | str = 1.0,
    keep_steps: bool = True,
) -> FlowPath:
    """One flow; with ``keep_steps`` every step of the solver, which certificates need.

    Gradient flow in its direct form: in the mirror form the certificates hold by construction.
    """
    from dataclasses import replace

    from dln_momentum.flows import gradient_flow, momentum_flow

    start = parts.net.w_plus.detach(), parts.net.w_minus.detach()
    options = replace(options, keep_steps=keep_steps)
    if lam == 0:
        return gradient_flow(
            parts.problem, *start, until.time, form="direct", times=until.times, tol=until.tol,
            options=options,
        )  # fmt: skip
    dw_plus, dw_minus = parts.velocity or (None, None)
    return momentum_flow(
        parts.problem, *start, lam, until.time, friction=friction, dw_plus_0=dw_plus,
        dw_minus_0=dw_minus, times=until.times, tol=until.tol, options=options,
    )  # fmt: skip


def setting(config: DictConfig, parts: Parts) -> dict[str, Any]:
    """What a summary says of the data and the start."""
    from dln_momentum.outputs.references import data_settings

    problem = parts.problem
    return {
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
    outputs, directory = outputs_of(job.config), job.directory
    history, figure = None, None
    if outputs.history:
        from dln_momentum.outputs.files import write_dataset
        from dln_momentum.outputs.history import flow_history
        from dln_momentum.outputs.provenance import file_attributes

        values = found.scalars | found.coordinates
        history = flow_history(values, found.times, problem, found.minimizer)
        history.attrs = file_attributes(summary, job.text)
        write_dataset(directory / "history.nc", history)
        if outputs.figure:
            from dln_momentum.outputs.figure_files import save
            from dln_momentum.outputs.plotting import overview

            figure = directory / "overview.png"
            save(overview(history, summary), figure)
    if outputs.dashboard:
        from dln_momentum.outputs import dashboard

        dashboard.write(directory, history, summary, job.text, figure=figure)
    job.finish(summary)


def completed(config: DictConfig) -> DictConfig:
    """The config that is meant: with ``compare=DIR``, data and start are those of DIR."""
    if config.get("compare") is None:
        return config
    from dln_momentum.cli.comparison import with_run

    return with_run(config)


main = command("flow", flow, complete=completed)

if __name__ == "__main__":
    run_and_leave(main)

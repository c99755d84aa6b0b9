"""``dln-flow``: follow networks in continuous time and leave their numbers, history and figure.

One lambda gives ``history.nc`` with every certificate, a list of them ``results.nc``
(`dln_momentum.cli.flows`), and ``compare=DIR`` a run beside its flows
(`dln_momentum.cli.comparison`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import check_outputs, outputs_of
from dln_momentum.cli.process import run_and_leave
from dln_momentum.errors import InputError, raise_if_any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from dln_momentum.cli.setup import Parts, Reader
    from dln_momentum.flows import FlowOptions, FlowPath
    from dln_momentum.flows.coefficients import Annealed
    from dln_momentum.outputs.flow_summary import FlowMeasures
    from dln_momentum.problem import Problem


class Until(NamedTuple):
    """How far flows are followed.

    Attributes:
        time: the last time; infinite for until convergence.
        times: the recorded times above 0, [T]; None for times that the flow chooses.
        tol: the energy at which a flow ends; None for none.
    """

    time: float
    times: Tensor | None
    tol: float | None


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
    from dln_momentum.cli.setup import Reader, build_parts, built, flow_options, seed_of

    config = job.config
    reader = Reader(config)
    reader.value("compare", str | None)
    options, lam, until = flow_options(reader), lam_of(reader), until_of(reader)
    friction = friction_of(reader)
    if lam is not None and until is not None and friction is not None:
        reader.errors += coefficient_errors(lam, friction, until)
    check_outputs(reader)
    parts = build_parts(reader, seed_of(reader))
    lam, until, options = built(lam), built(until), built(options)
    lams = lam if isinstance(lam, list) else [lam] if isinstance(lam, float) else []
    raise_if_any(_nothing_to_follow(config, parts, until, lams))
    raise_if_any(_infeasible(parts, lam, until, options, built(friction)))
    if isinstance(lam, list):
        from dln_momentum.cli.flows import flows

        return flows(job, parts, lam, until)
    return _one(job, parts, lam, until, options, built(friction))


def lam_of(reader: Reader) -> float | list[float] | Annealed | None:
    """lambda of one flow, or of each of many: a list or a span is many, even of one value.

    With ``flow.lam_end``, lambda changes from ``flow.lam`` to it.
    """
    from dln_momentum.config.spans import numbers_of
    from dln_momentum.flows.batched import LARGEST_LAM
    from dln_momentum.flows.coefficients import Annealed

    given = reader.value("flow.lam", Any)
    end, time = (reader.value(f"flow.lam_{key}", float | None) for key in ("end", "time"))
    kind = reader.value("flow.lam_kind", str)
    found = numbers_of("flow.lam", given)
    if isinstance(found, str):
        reader.errors.append(found)
        return None
    many = isinstance(given, list | str)
    most = LARGEST_LAM if many else math.inf
    wrong = [lam for lam in found if not (0 <= lam <= most and lam < math.inf)]
    if wrong:
        allowed = f"in [0, {most:g}]" if many else "finite and >= 0"
        reader.errors.append(f"flow.lam = {wrong[0]:g} must be {allowed}")
    elif len(set(found)) < len(found):
        reader.errors.append(f"flow.lam = {given!r} has a value twice; each may occur once")
    lams = [float(lam) for lam in found]
    if end is None and time is None:
        return lams if many else lams[0]
    if many or end is None or time is None:
        reader.errors.append(
            f"flow.lam_end = {end} and flow.lam_time = {time} must both be given, for one flow.lam"
        )
        return None
    try:
        return Annealed(lams[0], end, time, kind or "geometric")
    except InputError as error:
        names = {"start": "flow.lam", "end": "flow.lam_end", "time": "flow.lam_time"}
        names |= {"kind": "flow.lam_kind"}
        for line in error.problems:
            key, _, rest = line.partition(" ")
            reader.errors.append(f"{names[key]} {rest}")
        return None


def friction_of(reader: Reader) -> float | str | None:
    """The friction of the flow, a number or b/t as it is written."""
    from dln_momentum.flows import coefficients

    given = reader.value("flow.friction", Any)
    try:
        coefficients.friction_of(given)
    except InputError as error:
        reader.errors += [
            f"flow.{line}".replace(", or a function of t", "") for line in error.problems
        ]
        return None
    return given


def coefficient_errors(
    lam: float | list[float] | Annealed, friction: float | str, until: Until
) -> Iterator[str]:
    """What does not fit of lambda, friction and the last time."""
    from dln_momentum.flows.momentum_flow import coefficients_of

    if isinstance(lam, list):
        if friction != 1:
            yield f"flow.friction = {friction} must be 1 for many flow.lam"
        return
    try:
        given = coefficients_of(lam, friction, until.time)
    except InputError as error:
        yield from (f"flow.{line}" for line in error.problems)
        return
    if given is not None:
        yield from (f"flow.{line}" for line in given.errors())


def until_of(reader: Reader) -> Until | None:
    """Where the flows end, from section ``flow``."""
    import torch

    from dln_momentum.config.spans import numbers_of
    from dln_momentum.flows.options import time_errors
    from dln_momentum.record_plan import MOST_RECORDS

    before = len(reader.errors)
    records, given = reader.value("flow.records", int), reader.value("flow.times", Any)
    time, tol = reader.value("flow.time", float | None), reader.value("flow.tol", float)
    if records is not None and not 2 <= records <= MOST_RECORDS:
        reader.errors.append(f"flow.records = {records} must be in [2, {MOST_RECORDS}]")
    if given is not None:
        found = numbers_of("flow.times", given)
        if isinstance(found, str):
            reader.errors.append(found)
            return None
        times = torch.tensor(found, dtype=torch.float64)
        rising = bool((times.diff() > 0).all())
        if not rising or not times[0] >= 0 or not 0 < times[-1] < math.inf:
            reader.errors.append(
                f"flow.times = {given!r} must be increasing and finite, >= 0, the last one > 0"
            )
        if time is not None:
            reader.errors.append(f"flow.time = {time:g} must be null: flow.times end the flow")
        # the start is recorded in any case
        return Until(float(times[-1]), times[times > 0], None)
    until = Until(math.inf if time is None else time, None, tol or None)
    if tol is not None:
        lines = time_errors(until.time, None, until.tol)
        reader.errors += [f"flow.{line}" for line in lines]
    return until if len(reader.errors) == before else None


def _nothing_to_follow(
    config: DictConfig, parts: Parts, until: Until, lams: list[float]
) -> Iterator[str]:
    loss, tol = float(parts.problem.loss(parts.net.theta.detach())), until.tol
    if tol is not None and loss <= tol:
        yield f"the start already interpolates: loss {loss:g}, must be > flow.tol = {tol:g}"
    if parts.net.is_deep:
        yield (
            f"model = {config.model.init} has depth {float(parts.net.depth.flatten()[0]):g}: "
            "a flow is of theta = u v, depth 2"
        )
    if 0 in lams and parts.velocity is not None:
        speed = config.model.speed
        yield f"model.speed = {speed:g} must be 0: gradient flow has no speed to choose"
    if parts.velocity is not None and str(config.flow.friction).endswith("/t"):
        speed = config.model.speed
        yield f"model.speed = {speed:g} must be 0: friction b/t is infinite at t = 0"


def _infeasible(
    parts: Parts,
    lam: float | list[float] | Annealed,
    until: Until,
    options: FlowOptions,
    friction: float | str,
) -> Iterator[str]:
    """Flows that rounding or the solver's steps keep from their end."""
    import torch

    from dln_momentum.flows.feasibility import flow_errors

    many = isinstance(lam, list)
    w = torch.stack([parts.net.w_plus.detach(), parts.net.w_minus.detach()])
    if many:
        w = w.unsqueeze(1).expand(2, len(lam), -1)
    keys: dict[str, Any] = {"rtol": options.rtol}
    if not many:
        keys["max_steps"] = math.inf if options.method == "implicit" else options.max_steps
    for line in flow_errors(
        parts.problem, w, lam, friction=friction, time=until.time, tol=until.tol, **keys
    ):
        yield f"flow.{line.replace('a time up', 'flow.time up').replace('or lam', 'or flow.lam')}"


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
        **_of_path(path),
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


def _of_path(path: FlowPath) -> dict[str, Any]:
    # a path at output times may change its method more than once
    methods = dict.fromkeys(report.method for report in path.solvers)
    return {
        "status": path.status.value,
        "solver": " then ".join(methods),
        "solver_steps": sum(report.steps for report in path.solvers),
        "message": "; ".join(report.message for report in path.solvers if report.message),
    }


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
            from dln_momentum.outputs.plotting import overview, save

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

"""One run of ``dln-flow``: from a config to a directory of results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from threadpoolctl import threadpool_limits
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from dln_momentum.cli.assembly import Parts, build_parts, flow_options
from dln_momentum.config import Flow, read
from dln_momentum.errors import raise_if_any
from dln_momentum.flows import FlowPath, gradient_flow, momentum_flow
from dln_momentum.outputs.files import write_dataset, write_json
from dln_momentum.outputs.flow_summary import FlowMeasures, measure
from dln_momentum.outputs.history import flow_history
from dln_momentum.outputs.plotting import overview, picture, save
from dln_momentum.outputs.provenance import data_hash, file_attributes, provenance
from dln_momentum.outputs.quantities import QUANTITIES, tag
from dln_momentum.outputs.report import print_flow_report
from dln_momentum.problem import Problem

SETTINGS = ("lam", "n", "d", "alpha", "seed")
RESULTS = ("train_loss", "recovery_error", "l1_norm", "balancedness_l1", "sign_changes")


def flow(config: DictConfig, directory: Path, text: str) -> dict[str, Any]:
    """Follow one flow and write everything about it into its directory.

    Args:
        config: the composed config.
        directory: the run's own; made if it is not there.
        text: the config as written to ``config.yaml``.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    errors: list[str] = []
    keys = read(config, errors, Flow)
    parts = build_parts(keys, errors)
    raise_if_any(_nothing_to_follow(keys, parts))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(text)
    started = time.perf_counter()
    # matrices of this size gain nothing from a second thread
    with threadpool_limits(1):
        path = integrate(keys, parts)
        start = torch.stack([parts.net.w_plus.detach(), parts.net.w_minus.detach()])
        found = measure(parts.problem, path, keys.flow.records, keys.flow.tol, start)
    summary = {
        **_setting(keys, parts, path),
        "seconds": time.perf_counter() - started,
        **found.end,
        **provenance(data_hash(parts.problem)),
    }
    _write_outputs(parts.problem, found, summary, directory, text)
    print_flow_report(summary, directory)
    return summary


def _nothing_to_follow(keys: Flow, parts: Parts) -> Iterator[str]:
    loss, tol = float(parts.problem.loss(parts.net.theta.detach())), keys.flow.tol
    if loss <= tol:
        yield f"the start already interpolates: loss {loss:g}, must be > flow.tol = {tol:g}"
    if keys.flow.lam == 0 and parts.velocity is not None:
        yield f"model.speed = {keys.model.speed:g} must be 0: gradient flow has no speed to choose"


def integrate(keys: Flow, parts: Parts) -> FlowPath:
    """The flow that a checked config describes, every step of the solver.

    Gradient flow in its direct form: in the mirror form the certificates hold by construction.
    """
    flow = keys.flow
    assert flow.lam is not None
    start = parts.net.w_plus.detach(), parts.net.w_minus.detach()
    options = flow_options(flow)
    time = math.inf if flow.time is None else flow.time
    if flow.lam == 0:
        return gradient_flow(
            parts.problem, *start, time, form="direct", tol=flow.tol, options=options
        )
    dw_plus, dw_minus = parts.velocity or (None, None)
    return momentum_flow(
        parts.problem, *start, flow.lam, time, dw_plus_0=dw_plus, dw_minus_0=dw_minus,
        tol=flow.tol, options=options,
    )  # fmt: skip


def _setting(keys: Flow, parts: Parts, path: FlowPath) -> dict[str, Any]:
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
        "alpha": getattr(keys.model, "alpha", None) or float(parts.net.scale.detach().max()),
        "seed": keys.seed,
    }


def _write_outputs(
    problem: Problem, found: FlowMeasures, summary: dict[str, Any], directory: Path, text: str
) -> None:
    """Write the history, the figure, the dashboard and, last of all, the summary."""
    values = found.scalars | found.coordinates
    history = flow_history(values, found.times, problem, found.minimizer)
    history.attrs = file_attributes(summary, text)
    write_dataset(directory / "history.nc", history)
    figure = overview(history, summary)
    save(figure, directory / "overview.png")
    with SummaryWriter(str(directory / "tensorboard")) as writer:
        _dashboard(writer, found, summary)
        image, last = picture(directory / "overview.png"), len(found.times) - 1
        writer.add_image("overview", image, last, dataformats="HWC")
    write_json(directory / "summary.json", summary)


def _dashboard(writer: SummaryWriter, found: FlowMeasures, summary: Mapping[str, Any]) -> None:
    """Scalars at the recorded times, which are numbered, and the settings beside the results."""
    values = found.scalars | {"time": found.times}
    for name in [name for name in values if QUANTITIES[name].group]:
        for place, value in enumerate(values[name].tolist()):
            if math.isfinite(value):
                writer.add_scalar(tag(name), value, place)
    results = {f"result/{name}": float(summary[name]) for name in RESULTS}
    file_writer: Any = writer.file_writer
    # add_hparams would make a run of its own for them
    for piece in hparams({name: summary[name] for name in SETTINGS}, results):
        file_writer.add_summary(piece)
    for name, value in results.items():
        writer.add_scalar(name, value, 0)

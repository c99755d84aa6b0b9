"""``dln-flow`` of many lambda: integrated together, in pieces that are kept while it runs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.flow import setting
from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of

if TYPE_CHECKING:
    import xarray as xr

    from dln_momentum.cli.flow_sections import Until
    from dln_momentum.cli.setup import Parts

PIECE = 32
"""Flows that are integrated together, some seconds' work: what an interrupted command may lose."""

PIECES = "pieces"
"""The folder of finished pieces, which is removed once all are in one file."""

log = logging.getLogger("dln_momentum")


def flows(job: Job, parts: Parts, lams: list[float], until: Until) -> dict[str, Any]:
    """Follow a flow for each lambda and write their numbers into ``results.nc``.

    A piece that an interrupted command has left is read and not integrated again.

    Returns:
        The contents of ``summary.json``.
    """
    import xarray as xr

    from dln_momentum.outputs.flow_report import print_flows_report
    from dln_momentum.outputs.flow_results import counted
    from dln_momentum.outputs.provenance import data_hash, provenance
    from dln_momentum.outputs.quantities import describe
    from dln_momentum.theory.small_lambda import lambda_threshold

    job.begin()
    folder = job.directory / PIECES
    folder.mkdir(exist_ok=True)
    pieces: list[xr.Dataset] = []
    for first in range(0, len(lams), PIECE):
        pieces.append(
            _piece(folder / f"{first:06d}.npz", job, parts, lams[first : first + PIECE], until)
        )
        done = min(first + PIECE, len(lams))
        if done < len(lams):
            log.info("%d of %d flows", done, len(lams))
    results = describe(
        xr.concat(
            pieces, "lam", data_vars="minimal", coords="minimal", compat="override", join="override"
        )
    )
    problem, net = parts.problem, parts.net
    w = net.w_plus.detach(), net.w_minus.detach()
    summary = {
        "kind": "flows",
        "status": "finished",
        "endings": counted(results),
        "runs": len(lams),
        "axes": {"lam": len(lams)},
        **setting(job.config, parts),
        "seconds": job.seconds,
        "initial_loss": float(problem.loss(net.theta.detach())),
        "initial_balancedness_l1": float((w[0] * w[1]).abs().sum()),
        "small_lambda_threshold": float(lambda_threshold(problem, *w)),
        **provenance(data_hash(problem)),
    }
    _write_outputs(job, results, summary)
    shutil.rmtree(folder)
    print_flows_report(results, summary, job.directory)
    return summary


def _piece(path: Path, job: Job, parts: Parts, lams: list[float], until: Until) -> xr.Dataset:
    """The results of some flows, from the file of an interrupted command if it is there."""
    import torch

    from dln_momentum.interface.flow import flow_many
    from dln_momentum.outputs.flow_results import flows_dataset
    from dln_momentum.outputs.provenance import data_hash
    from dln_momentum.sweeps.piece_files import kept_piece

    def make() -> xr.Dataset:
        rtol, net = job.config.flow.rtol, parts.net
        w = torch.stack([net.w_plus.detach(), net.w_minus.detach()])
        paths = flow_many(
            parts.problem, w, torch.tensor(lams, dtype=torch.float64), velocity=parts.velocity,
            time=until.time, times=until.times, tol=until.tol, rtol=rtol,
        )  # fmt: skip
        return flows_dataset(parts.problem, paths, until.times)

    found = kept_piece(path, data_hash(parts.problem), make)
    del found.attrs["data_hash"]
    return found


def _write_outputs(job: Job, results: xr.Dataset, summary: dict[str, Any]) -> None:
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.provenance import file_attributes

    write_dataset(
        job.directory / "results.nc", results.assign_attrs(file_attributes(summary, job.text))
    )
    if outputs_of(job.config).figure:
        from dln_momentum.outputs.figure_files import save
        from dln_momentum.outputs.flows_figure import flows_figure

        save(flows_figure(results), job.directory / "overview.png")
    job.finish(summary)

"""``dln-flow compare=DIR``: a run of ``dln-train`` beside the flows that it discretises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import check_outputs, outputs_of
from dln_momentum.errors import InputError, raise_if_any

if TYPE_CHECKING:
    import xarray as xr

TAKEN = (
    "data", "model", "seed", "experiment", "flow.lam", "flow.lam_end", "flow.lam_time",
    "flow.lam_kind", "flow.friction", "flow.time", "flow.times", "flow.tol",
)  # fmt: skip
"""Keys that the compared run gives, or that follow from it."""


class FinishedRun(NamedTuple):
    """What a directory of ``dln-train`` holds."""

    directory: Path
    summary: dict[str, Any]
    history: xr.Dataset


def with_run(config: DictConfig) -> DictConfig:
    """The config with data, start, seed and lambda of the run that ``compare`` names.

    A directory that holds no config leaves it as it is: `compare` says what is wrong.
    """
    try:
        saved: Any = OmegaConf.load(Path(str(config.compare)).expanduser() / "config.yaml")
    except Exception:  # whatever the bytes of another file cause
        return config
    lam = OmegaConf.select(saved, "optimizer.lam") if OmegaConf.is_dict(saved) else None
    if lam is None or not {"data", "model", "seed"} <= set(saved):
        return config
    found = config.copy()
    with open_dict(found):
        for key in ("data", "model", "seed"):
            found[key] = saved[key]
        found.flow.lam = lam
    return found


def compare(job: Job) -> dict[str, Any]:
    """Follow the flows of a run's lambda and lambda_KS and write them beside the run.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: for a directory that holds no finished run with a history, data that have
            changed since, or keys that are taken from the run.
    """
    from threadpoolctl import threadpool_limits

    from dln_momentum.cli import sections
    from dln_momentum.cli.flow import integrate, setting
    from dln_momentum.cli.flow_sections import Until
    from dln_momentum.cli.setup import build_parts, built
    from dln_momentum.config import Reader
    from dln_momentum.outputs import comparison
    from dln_momentum.outputs.flow_report import print_comparison
    from dln_momentum.outputs.provenance import data_hash, provenance

    config = with_run(job.config)
    run = read_run(config.compare)
    raise_if_any(_no_flow_of(run))
    raise_if_any(
        f"{word} cannot be given with compare, which takes it from the run"
        for word in job.overrides
        if any(f"{word.partition('=')[0]}.".startswith(f"{key}.") for key in TAKEN)
    )
    reader = Reader(config)
    reader.value("compare", str)
    keys = ("lam", "lam_end", "lam_time", "lam_kind", "friction", "time", "times", "tol", "records")
    for key in keys:
        reader.value(f"flow.{key}", Any)
    options = sections.flow_options(reader)
    check_outputs(reader)
    parts = build_parts(reader, sections.seed_of(reader))
    raise_if_any(_changed(run, parts.problem, data_hash(parts.problem)))
    job.begin()
    times = comparison.comparable_times(run.history, at_rest=parts.velocity is None)
    lams = {"flow": run.summary["lam"], "flow_ks": run.summary["lam_ks"]}
    with threadpool_limits(1):
        paths = {}
        for name, lam in lams.items():
            until = Until(float(times[name][-1]), times[name][times[name] > 0], None)
            paths[name] = integrate(parts, lam, until, built(options), keep_steps=False)
    found = comparison.compared(run.history, parts.problem, paths, times)
    of_run = {key: run.summary[key] for key in ("gamma", "beta", "lam", "eps", "lam_ks", "steps")}
    summary = {
        "kind": "comparison",
        "status": comparison.status_of(paths),
        "compare": str(run.directory),
        **setting(config, parts),
        **of_run,
        "batch_size": run.summary["batch_size"],
        "time": float(times["flow"][-1]),
        **comparison.distances(found),
        "message": "; ".join(
            r.message for path in paths.values() for r in path.solvers if r.message
        ),
        "seconds": job.seconds,
        **provenance(data_hash(parts.problem)),
    }
    _write_outputs(job, found, summary)
    print_comparison(summary, job.directory)
    return summary


def read_run(path: Any) -> FinishedRun:
    """The run of a directory.

    Raises:
        InputError: for a directory that holds no finished run of ``dln-train`` with its history.
    """
    import xarray as xr

    name = f"compare = {path!r}"
    try:
        if not isinstance(path, str) or not path:
            raise ValueError("no path")
        directory = Path(path).expanduser()
        summary = json.loads((directory / "summary.json").read_text())
        if not isinstance(summary, dict):
            raise ValueError("no summary")
    except (OSError, ValueError, RuntimeError):  # the last for the home of an unknown user
        raise InputError([f"{name} must be the directory of a finished run of dln-train"]) from None
    if summary.get("kind") != "train":
        raise InputError(
            [f"{name} is of kind {summary.get('kind')}; it must be a run of dln-train"]
        )
    try:
        history = xr.load_dataset(directory / "history.nc", engine="h5netcdf")
    except Exception:  # whatever the bytes of another file cause
        raise InputError(
            [f"{name} has no readable history.nc, which the run leaves with outputs=full"]
        ) from None
    lacking = [key for key in ("theta", "w_plus", "balancedness") if key not in history]
    if lacking or len(history["step"]) < 2:
        raise InputError([f"{name}: its history lacks {', '.join(lacking) or 'steps after 0'}"])
    return FinishedRun(directory.absolute(), summary, history)


def _no_flow_of(run: FinishedRun) -> Iterator[str]:
    """Why a run does not discretise the flows of its lambda: they are of the poster's method."""
    of_poster = {
        "method": "heavy_ball", "schedule": "constant", "weight_decay": 0, "dampening": 0,
        "depth": 2, "loss_name": "squared", "gamma_v": run.summary.get("gamma_u"),
    }  # fmt: skip
    for key, usual in of_poster.items():
        # runs that were saved before there were these keys have the usual values
        if (value := run.summary.get(key, usual)) != usual:
            yield (
                f"compare = {str(run.directory)!r} has {key} = {value}, must be {usual}: the flows "
                "of its lambda are those of heavy ball with constant rates"
            )


def _changed(run: FinishedRun, problem: Any, found: str) -> Iterator[str]:
    if run.summary["data_hash"] != found:
        yield (
            f"compare = {str(run.directory)!r}: its data are not those of today, {problem.name}; "
            "a file has changed, or its path is relative to another directory"
        )


def _write_outputs(job: Job, found: xr.Dataset, summary: dict[str, Any]) -> None:
    """Write the history, the figure, a dashboard for each path and, last of all, the summary."""
    from dln_momentum.outputs import dashboard
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.provenance import file_attributes

    outputs = outputs_of(job.config)
    if outputs.history:
        found = found.assign_attrs(file_attributes(summary, job.text))
        write_dataset(job.directory / "history.nc", found)
    if outputs.figure:
        from dln_momentum.outputs.comparison_figure import comparison_figure
        from dln_momentum.outputs.figure_files import save

        save(comparison_figure(found, summary), job.directory / "overview.png")
    for name in found["path"].to_numpy().tolist() if outputs.dashboard else ():
        folder = job.directory / name
        folder.mkdir(exist_ok=True)
        dashboard.write(folder, found.sel(path=name), summary, job.text)
    job.finish(summary)

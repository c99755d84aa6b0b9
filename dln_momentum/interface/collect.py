"""Everything that was run below a folder, as one table."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
import yaml

from dln_momentum.outputs.quantities import QUANTITIES

log = logging.getLogger(__name__)

Row = dict[str, Any]

RESULTS = ("summary.json", "verify.json")
"""The last file that a finished job writes."""


class _Unreadable(Exception):  # noqa: N818
    """Why a directory has no row in the table."""


def collect(directory: str | Path) -> pd.DataFrame:
    """Every finished run, flow, sweep and verification below a folder, one row for each run.

    A directory counts as a job if it holds ``config.yaml``, ``summary.json`` or ``verify.json``;
    directories whose names begin with a dot are not searched.

    Args:
        directory: the folder.

    Returns:
        A table with the columns ``kind`` (train, flow, sweep or verify), ``path``, ``status``,
        ``data_hash``, every number and text of the summaries under its name in docs/quantities.md,
        and every key of the configs, with dots, that differs between jobs. A sweep has a row for
        each point of its grid. ``table.attrs["skipped"]`` lists (path, reason) for every job that
        could not be read or has not finished, each with a warning in the log.

    Raises:
        NotADirectoryError: if there is no such folder.

    >>> import tempfile
    >>> import dln_momentum as dln
    >>> problem = dln.sparse(n=5, d=8, s=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for gamma in (0.01, 0.02):
    ...         run = dln.train(problem, gamma=gamma, beta=0.9)
    ...         job = Path(folder) / f"{gamma:g}"
    ...         job.mkdir()
    ...         summary = {"kind": "train", "status": run.status, **run.summary}
    ...         _ = (job / "config.yaml").write_text(f"optimizer: {{gamma: {gamma}, beta: 0.9}}")
    ...         _ = (job / "summary.json").write_text(json.dumps(summary))
    ...     table = dln.collect(folder)
    >>> table[["path", "status", "lam", "optimizer.gamma"]].round(6)
       path     status  lam  optimizer.gamma
    0  0.01  converged  1.0             0.01
    1  0.02  converged  2.0             0.02
    >>> bool(table["kkt_residual"].max() < 1e-10), table.attrs["skipped"]
    (True, [])
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise NotADirectoryError(f"directory = {str(folder)!r} is not a folder")
    rows: list[Row] = []
    configs: list[Row] = []
    skipped: list[tuple[str, str]] = []
    for job in _jobs(folder):
        path = job.relative_to(folder).as_posix()
        try:
            config, found = _config(job), _rows(job)
        except _Unreadable as error:
            log.warning("skipped %s: %s", path, error)
            skipped.append((path, str(error)))
            continue
        rows += [{"kind": row.pop("kind"), "path": path, **row} for row in found]
        configs += [config] * len(found)
    table = pd.DataFrame(rows, columns=None if rows else ["kind", "path", "status", "data_hash"])
    table = _with_settings(table, configs)
    table.attrs["skipped"] = skipped
    return table


def _jobs(folder: Path) -> Iterator[Path]:
    """The directories that hold a job, finished or not, in the order of their names."""
    names = {"config.yaml", *RESULTS}
    found = {path.parent for path in folder.rglob("*") if path.name in names}
    for job in sorted(found):
        hidden = any(part.startswith(".") for part in job.relative_to(folder).parts)
        if not hidden:
            yield job


def _rows(job: Path) -> list[Row]:
    """The rows of one job.

    Raises:
        _Unreadable: saying what is missing or wrong.
    """
    result = next((job / name for name in RESULTS if (job / name).exists()), None)
    if (job / "claim.json").exists():
        raise _Unreadable("an experiment; its result is claim.json")
    if result is None:
        error = job / "error.txt"
        text = error.read_text(errors="replace").strip() if error.is_file() else ""
        why = f": {text.splitlines()[-1]}" if text else ""
        raise _Unreadable(f"unfinished, without {' or '.join(RESULTS)}{why}")
    summary = _read(result, json.loads)
    if not all(isinstance(summary.get(key), str) for key in ("kind", "status")):
        raise _Unreadable(f"{result.name} has no kind and status")
    if summary["kind"] != "sweep":
        return [_scalars(summary)]
    try:
        with xr.open_dataset(job / "results.nc", engine="h5netcdf") as results:
            runs = [name for name, value in results.variables.items() if _is_of_runs(value)]
            grid = results[runs]
            # a grid of one point has no dimension
            table = (grid if grid.dims else grid.expand_dims("index")).to_dataframe()
            points = table.reset_index().drop(columns="index", errors="ignore")
    except (OSError, ValueError) as error:
        raise _Unreadable(f"results.nc cannot be read: {error}") from error
    # what a sweep says of itself as a whole says nothing about a run
    of_runs = {name for name, row in QUANTITIES.items() if "t" in row.found} - {"seconds"}
    shared = {k: v for k, v in _scalars(summary).items() if k in of_runs}
    return [shared | {str(k): v for k, v in row.items()} for row in points.to_dict("records")]


def _is_of_runs(variable: xr.Variable) -> bool:
    return not {"step", "coordinate"} & set(variable.dims)


def _scalars(summary: Mapping[str, Any]) -> Row:
    return {k: v for k, v in summary.items() if not isinstance(v, list | dict)}


def _config(job: Path) -> Row:
    """The config with dotted keys; empty where there is none."""
    path = job / "config.yaml"
    found = dict(_flat(_read(path, yaml.safe_load))) if path.exists() else {}
    # what Hydra composes a config with is no setting of a run
    return {key: value for key, value in found.items() if key != "defaults"}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read(path: Path, parse: Any) -> dict[str, Any]:
    try:
        found = parse(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _Unreadable(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _Unreadable(f"{path.name} is not a mapping")
    return found


def _with_settings(table: pd.DataFrame, configs: list[Row]) -> pd.DataFrame:
    """The table with the keys of the configs that differ between rows; its own columns stay."""
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys if key not in table}
    # lists are compared as text
    differing = {key: column for key, column in values.items() if len(set(map(repr, column))) > 1}
    settings = pd.DataFrame(differing, index=table.index)
    return pd.concat([table, settings], axis=1)

"""Sweeps that were found below a folder: shards put together, and their runs as rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dln_momentum.outputs.axis_keys import AXES, key_of
from dln_momentum.outputs.found import Job, UnreadableError, hashable, is_setting
from dln_momentum.outputs.joining import join
from dln_momentum.outputs.quantities import NOT_RUN, QUANTITIES
from dln_momentum.outputs.run_table import Rows

OF_THE_SWEEP = {"kind", "status", "seconds"}
"""What the summary of a sweep says of itself as a whole, and its table of each run."""


@dataclass
class Sweep:
    """One sweep: one job, or the shards of one sweep in their order.

    Attributes:
        jobs: the shards, or the one job.
        num_shards: how many there are in all.
        notes: (path, what is missing or was left out).
    """

    jobs: list[Job]
    num_shards: int = 1
    notes: list[tuple[str, str]] = field(default_factory=list)

    def dataset(self) -> xr.Dataset:
        """All results, those of the shards joined.

        Raises:
            ValueError: if the grids of the shards differ.
            OSError: if a file cannot be read any more.
        """
        parts = [load(job.directory) for job in self.jobs]
        if self.num_shards > 1:
            for part in parts:
                # the config of the sweep that was not cut
                config = re.sub(r"(?m)^  num_shards: \d+$", "  num_shards: 1", part.attrs["config"])
                part.attrs["config"] = re.sub(r"(?m)^  shard: \d+$", "  shard: 0", config)
                part.attrs["shards"] = "\n".join(job.path for job in self.jobs)
        return join(parts)


def sweeps_of(jobs: Sequence[Job]) -> list[Sweep]:
    """The sweeps that some jobs of ``dln-sweep`` make, in the order of their first jobs.

    Shards of one sweep are jobs whose configs differ in ``sweep.shard`` alone, and in keys that
    change no number.
    """
    groups: dict[Any, Sweep] = {}
    for job in jobs:
        number = job.config.get("sweep.num_shards")
        if not isinstance(number, int) or number < 2:
            groups[job.path] = Sweep([job])
            continue
        settings = {
            key: hashable(value)
            for key, value in job.config.items()
            if (is_setting(key) or key.startswith("sweep.")) and key != "sweep.shard"
        }
        key = tuple(sorted(settings.items()))
        groups.setdefault(key, Sweep([], number)).jobs.append(job)
    for sweep in groups.values():
        _take_one_of_each(sweep)
    return list(groups.values())


def _take_one_of_each(sweep: Sweep) -> None:
    """Keep the first job of each shard; note what is missing or there twice."""
    if sweep.num_shards == 1:
        return
    first: dict[int, Job] = {}
    for job in sweep.jobs:
        shard = int(job.config["sweep.shard"])
        if shard in first:
            sweep.notes.append((job.path, f"shard {shard} again; {first[shard].path} is taken"))
        else:
            first[shard] = job
    sweep.jobs = [first[shard] for shard in sorted(first)]
    missing = [shard for shard in range(sweep.num_shards) if shard not in first]
    if missing:
        named = ", ".join(map(str, missing))
        kind = "shard" if len(missing) == 1 else "shards"
        text = f"{kind} {named} of {sweep.num_shards} missing (counted from 0)"
        sweep.notes.append((sweep.jobs[0].path, text))


def load(directory: Path) -> xr.Dataset:
    """``results.nc`` of a directory, in memory, without what it was stored with.

    Raises:
        OSError: where it cannot be read.
    """
    try:
        return xr.load_dataset(results_file(directory), engine="h5netcdf").drop_encoding()
    except OSError:
        raise
    except Exception as error:
        # h5py, h5netcdf and xarray raise whatever damaged bytes happen to cause
        raise OSError(f"{results_file(directory)} cannot be read: {error}") from error


def results_file(path: Path) -> Path:
    """The file of results: the path itself, or ``results.nc`` in a directory."""
    return path / "results.nc" if path.is_dir() else path


def runs_of(job: Job) -> Rows:
    """The runs of a sweep or shard; a key that is swept has a value for each run.

    Raises:
        UnreadableError: where ``results.nc`` cannot be read.
    """
    try:
        with xr.open_dataset(results_file(job.directory), engine="h5netcdf") as results:
            return rows_of_dataset(results, job)
    except UnreadableError:
        raise
    except Exception as error:
        # h5py, h5netcdf and xarray raise whatever damaged bytes happen to cause
        text = " ".join(str(error).split())
        name = results_file(job.directory).name
        raise UnreadableError(f"{name} cannot be read: {text}") from error


def rows_of_dataset(results: xr.Dataset, job: Job | None = None) -> Rows:
    """The runs of a labelled dataset, with the config and the summary of the job it is of.

    Raises:
        UnreadableError: if it has no ``status``.
    """
    job = job or Job(Path(), "", {}, {})
    if "status" not in results:
        raise UnreadableError("results.nc has no status: not the result of a sweep")
    per_entry = {"step", "coordinate"}
    names = [k for k, value in results.variables.items() if not per_entry & set(value.dims)]
    grid = results[names].load()
    settings, axes = [str(name) for name in grid.coords], _axes(grid)
    # a grid of one point has no dimension
    spread = grid if grid.dims else grid.expand_dims("index")
    table: Any = spread.to_dataframe().reset_index()
    dims = [name for name in spread.dims if name not in grid.coords or name == "run"]
    table = table.drop(columns=["index", *dims], errors="ignore")
    table = table[table["status"] != NOT_RUN].reset_index(drop=True)
    if "kind" not in table:
        table.insert(0, "kind", str(results.attrs.get("kind", "sweep")))
    files = table.get("path")
    if "run" not in grid.dims:  # an axis over files of data has the name of this column
        table = table.drop(columns="path", errors="ignore")
        table.insert(1, "path", job.path)
    # what the sweep says of all its runs
    of_runs = {name for name, row in QUANTITIES.items() if "t" in row.found} - OF_THE_SWEEP
    for name, value in job.summary.items():
        if name in of_runs and name not in table:
            table[name] = value
    config: dict[str, Any] = {k: v for k, v in job.config.items() if not k.startswith("sweep.")}
    if "run" in grid.dims:  # what dln-collect has written
        settings = axes = [str(name) for name in table if "." in str(name) or name == "seed"]
    for name in settings:
        key = _config_key(name, config)
        if key is not None or name in axes:
            config[key or name] = (files if name == "path" else table[name]).to_numpy()
    return Rows(table, config)


def _axes(grid: xr.Dataset) -> set[str]:
    """The coordinates that are axes: dimensions, and what moves along a zipped one."""
    zipped = {
        str(name)
        for name, value in grid.coords.items()
        if value.ndim == 1 and value.dims[0] not in grid.coords
    }
    return zipped | {str(name) for name in grid.dims}


def _config_key(name: str, config: dict[str, Any]) -> str | None:
    """The key of the config that an axis of a sweep varies; None for what is derived."""
    if not config:
        return None  # a dataset of its own: what moves along its dimensions is a setting
    key = name if name in config else key_of(name)
    return key if name in AXES or (key in config and is_setting(key)) else None


def endings(status: Any) -> dict[str, int]:
    """How many runs ended in each status."""
    labels, counts = np.unique(np.asarray(status, dtype=str), return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))

"""Everything that was run below some folders, as one table and one dataset."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dln_momentum.errors import raise_if_any
from dln_momentum.outputs.aggregation import FAILED, aggregate
from dln_momentum.outputs.found import (
    Job,
    UnreadableError,
    directories,
    hashable,
    read_job,
)
from dln_momentum.outputs.sweep_files import Sweep, endings, runs_of, sweeps_of
from dln_momentum.outputs.tables import runs_dataset

log = logging.getLogger(__name__)

FIRST = ["kind", "path", "status", "data_hash"]
"""The first columns of the table."""


@dataclass
class Collection:
    """What `find` has read.

    Attributes:
        table: a row for each run.
        settings: the columns that hold keys of the configs.
        sweeps: the sweeps, shards together.
        others: the other finished jobs.
        unfinished: jobs without a result.
        skipped: (path, reason) of what has no row.
        failures: (path, reason) of runs that have a row and no numbers to compare.
    """

    table: pd.DataFrame
    settings: list[str]
    sweeps: list[Sweep] = field(default_factory=list)
    others: list[Job] = field(default_factory=list)
    unfinished: list[Job] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def dataset(self) -> xr.Dataset:
        """The grid, where all that was found is one sweep; else a dimension ``run``."""
        if len(self.sweeps) == 1 and not self.others:
            return self.sweeps[0].dataset()
        return runs_dataset(self.table)


def collect(
    *directory: str | Path,
    over: str | Sequence[str] | None = None,
    quantiles: Sequence[float] = (0.25, 0.75),
) -> pd.DataFrame:
    """Every finished run, flow, sweep and verification below some folders, one row for each run.

    A directory counts as a job if it holds ``config.yaml``, ``summary.json``, ``verify.json``,
    ``results.nc``, ``history.nc`` or ``status.json``; directories whose names begin with a dot are
    not searched. Shards of one sweep count as one sweep.

    Args:
        *directory: the folders, or files ``results.nc``.
        over: a key, or several, to aggregate over, as ``seed`` or ``data_seed``: the table then has
            a row for each group of runs that differ in these keys alone. Runs on different data
            (``data_hash``) are never in one group, unless ``over`` has the seed of the data.
        quantiles: those that a column ``NAME_qXX`` is made of beside ``NAME_median``.

    Returns:
        A table with the columns ``kind`` (train, flow, sweep or verify), ``path``, ``status``,
        ``data_hash``, every key of the configs, with dots, that differs between runs, and every
        number and text of the summaries under its name in docs/quantities.md. With ``over``, in
        place of ``path`` and ``status``: ``count`` (runs with a row, diverged ones among them),
        ``converged``, ``failures`` (runs that diverged, are invalid, or left no result) and the
        statistics of each number over the runs that are no failures.

        ``table.attrs["skipped"]`` lists (path, reason) for every job that could not be read or has
        not finished, and every missing shard, each with a warning in the log;
        ``table.attrs["failures"]`` the runs that diverged or are invalid, which have rows.

    Raises:
        InputError: if there is no such folder, or nothing in it has the key that ``over`` names.

    >>> import json, tempfile
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
    found = _told(find(*directory))
    if over is None:
        return found.table
    names = [over] if isinstance(over, str) else list(over)
    return aggregate(found.table, found.settings, names, found.unfinished, quantiles)


def results(*directory: str | Path) -> xr.Dataset:
    """The labelled results below some folders.

    Args:
        *directory: as for `collect`.

    Returns:
        The grid of the sweep, with shards joined, where the folders hold one sweep and no other
        run; else the table of `collect` as a dataset over ``run``.

    Raises:
        InputError: if there is no such folder, or the grids of shards differ.
    """
    return _told(find(*directory)).dataset()


def _told(found: Collection) -> Collection:
    """The same, with a warning for each job that has no row."""
    for path, reason in found.skipped:
        log.warning("skipped %s: %s", path, reason)
    return found


def find(*directory: str | Path) -> Collection:
    """Read all jobs below some folders; for the arguments and errors see `collect`."""
    places = [Path(name) for name in directory]
    raise_if_any(
        f"directory = {str(place)!r} must be a folder or a results.nc; "
        + ("it is neither" if place.exists() else "there is none")
        for place in places
        if not (place.is_dir() or (place.is_file() and place.suffix == ".nc"))
    )
    raise_if_any([] if places else ["directory: give one folder or more"])
    collection = Collection(pd.DataFrame(columns=FIRST), [])
    pieces: list[tuple[pd.DataFrame, dict[str, Any]]] = []
    kept: list[Job] = []
    for job in _jobs(places, collection.skipped):
        rows = _rows(job, collection)
        if rows is not None:
            kept.append(job)
            pieces.append(rows)
    collection.sweeps = sweeps_of([job for job in kept if _is_sweep(job)])
    collection.others = [job for job in kept if not _is_sweep(job)]
    again = {
        path
        for sweep in collection.sweeps
        for path, _ in sweep.notes
        if path not in {job.path for job in sweep.jobs}
    }
    collection.skipped += [note for sweep in collection.sweeps for note in sweep.notes]
    pieces = [piece for job, piece in zip(kept, pieces, strict=True) if job.path not in again]
    if pieces:
        collection.table, collection.settings = _table(pieces)
    collection.table.attrs = {"skipped": collection.skipped, "failures": collection.failures}
    return collection


def _is_sweep(job: Job) -> bool:
    return job.kind in ("", "sweep")


def _jobs(places: Sequence[Path], skipped: list[tuple[str, str]]) -> Iterator[Job]:
    """The jobs of all places, each once, with its path below the one folder or in front of it."""
    seen: set[Path] = set()
    unreadable: list[tuple[Path, str]] = []
    for place in places:
        found = directories(place, unreadable) if place.is_dir() else [place]
        for directory in found:
            if (real := directory.resolve()) in seen:
                continue
            seen.add(real)
            shown = directory.relative_to(place) if len(places) == 1 else directory
            path = shown.as_posix() if directory != place else directory.as_posix()
            if directory.is_dir():
                yield read_job(directory, path if len(places) > 1 else shown.as_posix())
            else:
                yield Job(directory, path, {}, {})
    skipped += [(os.fspath(path), reason) for path, reason in unreadable]


def _rows(job: Job, collection: Collection) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """The rows of a job, or None with the reason noted."""
    reason = job.reason
    if not reason:
        try:
            if _is_sweep(job):
                table, config = runs_of(job)
            else:
                table, config = pd.DataFrame([job.summary]), job.config
            table.insert(1, "path", job.path)
            _note_failures(job, table, collection)
            return table, config
        except UnreadableError as error:
            reason = str(error)
    collection.skipped.append((job.path, reason))
    collection.unfinished.append(job)
    return None


def _note_failures(job: Job, table: pd.DataFrame, collection: Collection) -> None:
    counts = endings(table["status"].to_numpy())
    for label in FAILED:
        if counts.get(label) and len(table) == 1:
            steps = table.get("steps")
            after = "" if steps is None or pd.isna(steps[0]) else f" after {steps[0]:.0f} steps"
            collection.failures.append((job.path, f"{label}{after}"))
        elif counts.get(label):
            text = f"{counts[label]} of {len(table)} runs {label}"
            collection.failures.append((job.path, text))


def _table(
    pieces: Sequence[tuple[pd.DataFrame, dict[str, Any]]],
) -> tuple[pd.DataFrame, list[str]]:
    """All rows, and the names of the columns that hold keys of the configs that vary."""
    # of a column that is empty in a piece, pandas would take the type of the emptiness
    tables = [table.dropna(axis="columns", how="all") for table, _ in pieces]
    columns = dict.fromkeys([*FIRST, *(str(name) for table, _ in pieces for name in table)])
    table = pd.concat(tables, ignore_index=True).reindex(columns=list(columns))
    varying: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for _, config in pieces for key in config):
        column: list[Any] = []
        for rows, config in pieces:
            value = config.get(key)
            array = isinstance(value, np.ndarray)
            column += value.tolist() if array else [value] * len(rows)
        present = zip(column, _having(pieces, key), strict=True)
        if len({hashable(value) for value, has in present if has}) > 1:
            varying[key] = column
        if key in table and table[key].isna().any():
            # a summary without this number: the config has it
            table[key] = table[key].where(table[key].notna(), pd.Series(column, table.index))
    found = {key: column for key, column in varying.items() if key not in table}
    first, rest = table[FIRST], table.drop(columns=FIRST)
    return pd.concat([first, pd.DataFrame(found, index=table.index), rest], axis=1), list(varying)


def _having(pieces: Sequence[tuple[pd.DataFrame, dict[str, Any]]], key: str) -> Iterator[bool]:
    """For each row, whether its config has a key."""
    for rows, config in pieces:
        yield from [key in config] * len(rows)

"""Everything that was run below some folders, as one table and one dataset."""

from __future__ import annotations

import logging
import os
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import xarray as xr

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.outputs.aggregation import FAILED, aggregate
from dln_momentum.outputs.divergence import why_diverged
from dln_momentum.outputs.found import (
    Job,
    UnreadableError,
    directories,
    read_job,
)
from dln_momentum.outputs.run_table import Rows, run_table
from dln_momentum.outputs.sweep_files import Sweep, endings, runs_of, sweeps_of
from dln_momentum.outputs.tables import runs_dataset

log = logging.getLogger(__name__)


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
    names = [over] if isinstance(over, str) else over
    for key, given, kinds in (("over", names, str), ("quantiles", quantiles, float | int)):
        several = isinstance(given, list | tuple) and all(isinstance(x, kinds) for x in given)
        if not several:
            raise InputError(f"{key} = {given!r} must be a list of {_WORDS[key]}")
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
    raise_if_any(
        f"directory = {name!r} must be a path, of a folder or a results.nc"
        for name in directory
        if not isinstance(name, str | Path)
    )
    places = [Path(name) for name in directory]
    raise_if_any(
        f"directory = {reprlib.repr(str(place))} must be a folder or a results.nc; "
        + ("it is neither" if os.path.lexists(place) else "there is none")
        for place in places
        if not _is_place(place)
    )
    if not places:
        raise InputError("directory: give one folder or more")
    collection = Collection(*run_table([]))
    pieces = {
        job: rows
        for job in _jobs(places, collection.skipped)
        if (rows := _rows(job, collection)) is not None
    }
    collection.sweeps = sweeps_of([job for job in pieces if _is_sweep(job)])
    collection.others = [job for job in pieces if not _is_sweep(job)]
    collection.skipped += [note for sweep in collection.sweeps for note in sweep.notes]
    kept = {*collection.others, *(job for sweep in collection.sweeps for job in sweep.jobs)}
    found = [rows for job, rows in pieces.items() if job in kept]
    collection.table, collection.settings = run_table(found)
    collection.table.attrs = {"skipped": collection.skipped, "failures": collection.failures}
    return collection


_WORDS = {"over": "keys, or one key", "quantiles": "numbers in [0, 1]"}


def _is_place(place: Path) -> bool:
    try:
        return place.is_dir() or (place.is_file() and place.suffix == ".nc")
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def _is_sweep(job: Job) -> bool:
    return job.kind in ("", "sweep", "flows")


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
            if place.is_file():
                yield Job(place, place.as_posix(), {}, {})
                continue
            shown = directory.relative_to(place) if len(places) == 1 else directory
            yield read_job(directory, shown.as_posix())
    skipped += [(os.fspath(path), reason) for path, reason in unreadable]


def _rows(job: Job, collection: Collection) -> Rows | None:
    """The rows of a job, or None with the reason noted."""
    try:
        if job.reason:
            raise UnreadableError(job.reason)
        if _is_sweep(job):
            rows = runs_of(job)
            counts = endings(rows.values["status"])
        else:
            rows = Rows({"kind": job.kind, "path": job.path, **job.summary}, job.config)
            counts = {job.summary["status"]: 1}
    except UnreadableError as error:
        collection.skipped.append((job.path, str(error)))
        collection.unfinished.append(job)
        return None
    for label in FAILED:
        if number := counts.get(label):
            text = f"{number} of {len(rows)} runs {label}" if _is_sweep(job) else _how(job, label)
            collection.failures.append((job.path, text))
    return rows


def _how(job: Job, label: str) -> str:
    steps, message = job.summary.get("steps"), job.summary.get("message")
    # runs of earlier versions do not have these numbers
    if label == "diverged" and job.summary.get("stable_gamma") is not None:
        message = why_diverged(job.summary)
    return label + (f" after {steps} steps" if steps else "") + (f": {message}" if message else "")

"""Which jobs of a multirun can be trained together: points of a grid, whose axis is what varies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from dln_momentum.cli.command import Command, one_thread
from dln_momentum.cli.fitting import monitors_of
from dln_momentum.cli.job import Job
from dln_momentum.cli.setup import build
from dln_momentum.config import momentum
from dln_momentum.config.reading import cast
from dln_momentum.errors import InputError
from dln_momentum.outputs.axis_keys import name_of
from dln_momentum.outputs.found import flat
from dln_momentum.outputs.grid import Axis, Grid
from dln_momentum.outputs.status import Lock
from dln_momentum.seeding import is_seed
from dln_momentum.sweeps.assembly import Study, pieces_of
from dln_momentum.sweeps.axes import SECTIONS
from dln_momentum.sweeps.group import Group, Result, kept, train
from dln_momentum.sweeps.points import Points
from dln_momentum.training.callbacks import Monitor


def do_together(command: Command, jobs: Sequence[Job], folder: Path) -> dict[int, Result | None]:
    """Do those of some jobs, not begun yet, that can be trained with others.

    Returns:
        What each of these jobs finishes with, by its place; None where one fails, or is to be done
        alone.
    """
    one_thread()
    found: dict[int, Result | None] = {}
    for places in _alike(jobs):
        waiting: list[int] = []
        for place in places:
            if Lock(jobs[place].directory).held_by_any():
                continue  # another process does it, or this very multirun: it is waited for later
            found[place] = command.attempt(jobs[place], command.prepare)
            # one with a checkpoint of its own goes on from there
            if not jobs[place].state and found[place] is None and not jobs[place].checkpoint:
                waiting.append(place)
        waiting = [place for place in waiting if _has_numbers(jobs[place].values)]
        for members in _as_before(jobs, waiting, folder):
            study = _study([jobs[place] for place in members])
            if study is None:
                continue
            for piece in study.pieces:
                own = [members[point] for point in piece.points]
                group = Group(study, piece, [jobs[place] for place in own])
                found |= dict(zip(own, train(command, group, folder), strict=True))
    return found


def _as_before(jobs: Sequence[Job], waiting: Sequence[int], folder: Path) -> Iterator[list[int]]:
    """The places of jobs as interrupted groups had them, to go on from checkpoints; then others."""
    left = {jobs[place].config_hash: place for place in waiting}
    for hashes in kept(folder):
        if left.keys() >= set(hashes):
            yield [left.pop(name) for name in hashes]
    yield list(left.values())


def _alike(jobs: Sequence[Job]) -> list[list[int]]:
    """The places of jobs that differ in values of `SECTIONS` alone."""
    groups: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        try:
            values = job.values
        except OmegaConfBaseException:  # done alone, it is refused
            continue
        others = {key: value for key, value in values.items() if key not in SECTIONS}
        groups.setdefault(repr((others, list(_varying(job)))), []).append(place)
    return list(groups.values())


def _varying(job: Job) -> dict[str, Any]:
    """The values of `SECTIONS` by dotted key."""
    return dict(flat({name: job.values[name] for name in SECTIONS if name in job.values}))


def _study(jobs: Sequence[Job]) -> Study | None:
    """The jobs as the points of a grid whose only axis is all that varies; None if they are not.

    A config that is refused is no part of it: its job, done alone, says why. Callbacks other than
    monitors see the median of all runs, by which they may end them: they are for one run.
    """
    if len(jobs) < 2 or jobs[0].values["resume"] is not None:
        return None
    each = [_varying(job) for job in jobs]
    axis = {"seed": [values["seed"] for values in each]}
    for key, first in each[0].items():
        if any(repr(values[key]) != repr(first) for values in each):
            axis[name_of(key)] = [values[key] for values in each]
    points = Points(jobs[0].config, Grid([Axis(axis)]))
    try:
        if not points.valid.any():
            return None
        config = jobs[int(points.valid.argmax())].config
        build(config)  # checks what all jobs share, and that no key is unknown
        monitors = monitors_of(config)
    except Exception:  # whatever a file of data causes: each job says it of itself
        return None
    if not all(isinstance(callback, Monitor) for callback in monitors):
        return None
    return Study(points, list(pieces_of(points, len(jobs))))


def _has_numbers(values: Mapping[str, Any]) -> bool:
    """Whether seed, speed and rates are numbers that a run may have, which no `Part` checks."""
    try:
        seed, speed = cast(values["seed"], int), cast(values["model"]["speed"], float)
        rates = {key: cast(rate, float | None) for key, rate in values["optimizer"].items()}
        momentum(rates)
    except (InputError, TypeError, KeyError):
        return False
    return is_seed(seed) and math.isfinite(speed)

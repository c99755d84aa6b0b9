"""Runs by the data they are trained on, and how what concerns the data is done for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import Snapshot
from dln_momentum.engine.parallel import for_each
from dln_momentum.problem import Problem

Stream = TypeVar("Stream", BatchStream, LabelNoise)
Measure = Callable[[Snapshot, Problem], dict[str, Tensor]]

PIECE = 2**17
"""Entries of theta measured at once."""

_RUNS_SECOND = ("w_start", "w", "boundary", "direct_path_sums")
"""The fields of a snapshot that have the runs along axis 1, after the axis of w_+ and w_-."""


@dataclass(frozen=True)
class Cohort:
    """The runs on one problem, or on a stack that holds one problem for each of them.

    A sweep over data sets has a cohort for each data set, so that its runs share one X and one
    pair of matrix products; where few runs share a data set, several are stacked in a cohort.
    """

    problem: Problem
    runs: Tensor | None = None
    """indices among all runs, int64; None for all of them, in their order"""

    def select(self, values: Tensor) -> Tensor:
        """The rows of [R, ...] that belong to this cohort."""
        return values if self.runs is None else values[self.runs]

    def stream(self, stream: Stream) -> Stream:
        """A stream of random numbers restricted to the runs of this cohort."""
        if self.runs is None or not isinstance(stream.seeds, Sequence):
            return stream
        seeds = [stream.seeds[run] for run in self.runs.tolist()]
        return dataclasses.replace(stream, seeds=seeds)

    def snapshot(self, whole: Snapshot) -> Snapshot:
        """The part of a snapshot that belongs to this cohort."""
        return whole if self.runs is None else take(whole, self.runs)


def measure_all(
    cohorts: Sequence[Cohort], snapshot: Snapshot, measure: Measure, workers: int = 1
) -> dict[str, Tensor]:
    """What a function of runs and their problem gives for all runs, in their order.

    Many runs are measured a piece at a time, so that what the function derives on its way takes
    little memory beside the runs themselves.

    Args:
        cohorts: every run belongs to exactly one.
        snapshot: of all runs.
        measure: from the snapshot of a cohort and its problem to values [R, ...] by name.
        workers: threads that measure pieces.
    """
    pieces = [piece for cohort in cohorts for piece in _pieces(cohort, *snapshot.w.shape[1:])]
    parts: list[dict[str, Tensor]] = [{}] * len(pieces)

    def measure_one(index: Tensor) -> None:
        piece = pieces[int(index)]
        parts[int(index)] = measure(piece.snapshot(snapshot), piece.problem)

    for_each(measure_one, torch.arange(len(pieces)).split(1), workers)
    return {name: in_order(pieces, [part[name] for part in parts]) for name in parts[0]}


def _pieces(cohort: Cohort, all_runs: int, d: int) -> list[Cohort]:
    """A cohort of many runs cut into smaller ones; a stack of problems is small as it is."""
    runs = torch.arange(all_runs) if cohort.runs is None else cohort.runs
    if cohort.problem.runs or len(runs) * d <= PIECE:
        return [cohort]
    return [Cohort(cohort.problem, piece) for piece in runs.split(max(1, PIECE // d))]


def in_order(cohorts: Sequence[Cohort], parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join the values of each cohort along the axis of the runs, in the order of all runs."""
    if cohorts[0].runs is None:
        return parts[0]
    places = torch.cat([cohort.runs for cohort in cohorts if cohort.runs is not None])
    return torch.cat(list(parts), axis).index_select(axis, places.argsort().to(parts[0].device))


def take(whole: Snapshot, runs: Tensor) -> Snapshot:
    """Some of the runs of a snapshot."""
    chosen = {
        name: value.index_select(_axis(name), runs.to(value.device))
        for name, value in vars(whole).items()
        if name in _FIELDS and isinstance(value, Tensor)
    }
    return dataclasses.replace(whole, **chosen)


def join(cohorts: Sequence[Cohort], parts: Sequence[Snapshot]) -> Snapshot:
    """The snapshot of all runs from those of their cohorts."""
    if cohorts[0].runs is None:
        return parts[0]
    joined = {
        name: in_order(cohorts, [getattr(part, name) for part in parts], _axis(name))
        for name in _FIELDS
        if isinstance(getattr(parts[0], name), Tensor)
    }
    step = max(part.step for part in parts)
    return dataclasses.replace(parts[0], **joined, step=step)


_FIELDS = frozenset(field.name for field in dataclasses.fields(Snapshot))


def _axis(name: str) -> int:
    return 1 if name in _RUNS_SECOND else 0

"""Runs by the data they are trained on, and how what concerns the data is done for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import Snapshot
from dln_momentum.problem import Problem

Stream = TypeVar("Stream", BatchStream, LabelNoise)

_RUNS_SECOND = ("w_start", "w", "boundary", "speed_term", "path_sums_from_iterates")
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


def in_order(places: Sequence[Tensor], parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join parts along the axis of the runs, in the order of all runs.

    >>> in_order([torch.tensor([0, 2]), torch.tensor([1])], [torch.zeros(2), torch.ones(1)])
    tensor([0., 1., 0.])
    """
    if len(parts) == 1:
        return parts[0]
    order = torch.cat(list(places)).argsort()
    return torch.cat(list(parts), axis).index_select(axis, order.to(parts[0].device))


def join(places: Sequence[Tensor], parts: Sequence[Snapshot]) -> Snapshot:
    """The snapshot of all runs from those of their cohorts."""
    joined = {
        name: in_order(places, [getattr(part, name) for part in parts], _axis(name))
        for name in (field.name for field in dataclasses.fields(Snapshot))
        if isinstance(getattr(parts[0], name), Tensor)
    }
    return dataclasses.replace(parts[0], **joined, step=max(part.step for part in parts))


def _axis(name: str) -> int:
    return 1 if name in _RUNS_SECOND else 0

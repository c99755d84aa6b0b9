"""The data of R runs: one problem for all of them, or several of one shape."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from dln_momentum.engine.parallel import for_each
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.problem import Problem, stack

SHARED_RUNS = 8
"""Runs on one problem from which they form a group of their own; fewer are stacked with others. At
(n, d) = (20, 30) a stacked run costs as much as one of eight that share X, half of a lone one."""

STACK_BYTES = 2**22
"""Data in one stacked group, which has a copy of its problem for every run. Larger stacks leave the
cache: at (200, 1000) stacking was measured twice as slow as one run after the other."""

MEASURED_AT_ONCE = 2**17
"""Entries of theta that are read out and measured at once."""

Measure = Callable[[Snapshot, Problem], dict[str, Tensor]]
"""From the snapshot of some runs and their problem to values [R, ...] by name."""

Report = Callable[[int], object]
"""Called with the number of runs that have just been measured, from any thread."""


_RUNS_SECOND = (
    "w_start", "w", "boundary", "speed_term", "path_sums_from_iterates", "increment", "ahead",
)  # fmt: skip
"""The fields of a snapshot that have the runs along axis 1, after the axis of w_+ and w_-."""

_NO_RUNS = ("kappa",)
"""The fields that all runs share."""


@dataclass(frozen=True, eq=False)
class ProblemGroup:
    """The runs that share one problem, or a stack that holds one problem for each of them."""

    problem: Problem
    runs: Tensor | None = None
    """indices among all runs, int64; None for all of them, in their order"""

    @property
    def places(self) -> Tensor | slice:
        """What picks the runs of the group out of a tensor [R, ...]."""
        return slice(None) if self.runs is None else self.runs


@dataclass(frozen=True, eq=False)
class Problems:
    """Several problems of one shape, and which of them each run has.

    Attributes:
        each: the problems, none with run dimensions.
        index: which of them each run has, whole numbers [*runs]; the engine takes one dimension.

    Raises:
        InputError: for no problem, problems of several shapes, or an index out of range.

    >>> from dln_momentum.data import sparse
    >>> both = Problems([sparse(5, 8, 1, seed=0), sparse(5, 8, 1, seed=1)], torch.tensor([0, 1, 0]))
    >>> [(group.problem.runs, group.runs.tolist()) for group in both.groups]
    [(torch.Size([3]), [0, 1, 2])]
    """

    each: Sequence[Problem]
    index: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.each, list | tuple):
            raise InputError(f"each is a {type(self.each).__name__}; it must be a list of problems")
        try:
            index = torch.as_tensor(self.index)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"index = {self.index!r} must be whole numbers") from error
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise InputError(f"index is {index.dtype}; must be whole numbers")
        object.__setattr__(self, "index", index.long())
        raise_if_any(self._faults())

    def _faults(self) -> Iterator[str]:
        wrong = [
            type(problem).__name__ for problem in self.each if not isinstance(problem, Problem)
        ]
        if wrong or not self.each:
            what = f"a {wrong[0]}" if wrong else "nothing"
            yield f"problem: the list holds {what}; it must hold problems, at least one"
            return
        first = self.each[0]
        for problem in self.each:
            if problem.runs:
                yield f"problem: {problem.name} has run dimensions {list(problem.runs)} of its own"
            if (problem.n, problem.d) != (first.n, first.d):
                yield (
                    f"problem: {problem.name} has (n, d) = {(problem.n, problem.d)}, "
                    f"{first.name} has {(first.n, first.d)}; all must have one shape"
                )
            if problem.loss_name != first.loss_name:
                yield (
                    f"problem: {problem.name} has the {problem.loss_name} loss, {first.name} the "
                    f"{first.loss_name} one; all must have one loss"
                )
        index = self.index
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(self.each):
            yield f"index must be in [0, {len(self.each)})"

    @property
    def first(self) -> Problem:
        """The first problem, which has the shape of all."""
        return self.each[0]

    @cached_property
    def groups(self) -> list[ProblemGroup]:
        """The runs by their problem: a group for each problem, or for several with few runs."""
        if len(self.each) == 1:
            return [ProblemGroup(self.each[0])]
        several, found = self._stacked_at_once, []
        for start in range(0, len(self.each), several):
            runs = ((start <= self.index) & (self.index < start + several)).nonzero().squeeze(-1)
            if len(runs):
                alone = [self.each[place] for place in self.index[runs].tolist()]
                problem = self.each[start] if several == 1 else stack(alone)
                found.append(ProblemGroup(problem, runs))
        return found

    @property
    def runs(self) -> torch.Size:
        """The shape of the runs."""
        return self.index.shape

    @property
    def copies(self) -> int:
        """How many copies of the data the groups hold beside the problems themselves."""
        return len(self.index) if len(self.each) > 1 and self._stacked_at_once > 1 else 0

    @cached_property
    def _stacked_at_once(self) -> int:
        """How many problems of this size go into one group, by how many runs each of them has."""
        most = int(torch.bincount(self.index).max())
        if most >= SHARED_RUNS:
            return 1
        X_test = self.first.X_test
        rows = 4 * self.first.n + (0 if X_test is None else X_test.shape[-2])
        return max(1, STACK_BYTES // (most * 8 * rows * self.first.d))

    def to(self, device: torch.device | str) -> Problems:
        """The same problems with their tensors on a device."""
        return Problems([problem.to(device) for problem in self.each], self.index)


def groups_of(problem: Problem | Problems) -> list[ProblemGroup]:
    """The groups of runs with the problem of each; one problem, or one stack, is one group."""
    return [ProblemGroup(problem)] if isinstance(problem, Problem) else problem.groups


def first_of(problem: Problem | Problems) -> Problem:
    """The problem; of several the first."""
    return problem if isinstance(problem, Problem) else problem.first


def data_of_runs(problem: Problem, runs: Tensor) -> Problem:
    """The data of some runs, without checking them again."""
    if not problem.runs:
        return problem
    part = copy.copy(problem)
    part.__dict__.pop("row_space", None)
    for key, core in (("X", 2), ("y", 1)):
        tensor = getattr(problem, key)
        if tensor.ndim > core:
            rows = tensor.expand(*problem.runs, *tensor.shape[-core:])
            object.__setattr__(part, key, rows[runs])
    return part


def problem_of_run(problem: Problem | Problems, run: int) -> Problem:
    """The data of one of R runs; of a stack with the run dimension [1]."""
    if isinstance(problem, Problems):
        return problem.each[int(problem.index[run])]
    return data_of_runs(problem, torch.tensor([run]))


@overload
def flat_problem(problem: Problem, shape: tuple[int, ...]) -> Problem: ...
@overload
def flat_problem(problem: Problems, shape: tuple[int, ...]) -> Problems: ...
def flat_problem(problem: Problem | Problems, shape: tuple[int, ...]) -> Problem | Problems:
    """The same data for R runs: shared as it is, or one for each of them."""
    if isinstance(problem, Problems):
        return Problems(problem.each, problem.index.expand(shape).reshape(-1))
    if not problem.runs:
        return problem
    fields: dict[str, Tensor] = {}
    for name, core in (("X", 2), ("y", 1), ("theta_star", 1), ("X_test", 2), ("y_test", 1)):
        tensor = getattr(problem, name)
        if tensor is not None:
            inner = tensor.shape[-core:]
            fields[name] = tensor.expand(*shape, *inner).reshape(-1, *inner)
    return problem.replace(**fields)


def measure(
    read: Callable[[Tensor | slice], Snapshot],
    groups: Sequence[ProblemGroup],
    R: int,
    function: Measure,
    workers: int = 1,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """What a function of runs and their problem gives for all runs, in their order.

    Many runs are read out and measured a chunk at a time, on all workers, so that what the
    function derives takes little memory beside the runs themselves.

    Args:
        read: the snapshot of some of the runs, by their indices.
        groups: the runs by their problem.
        R: how many runs there are.
        function: what is measured.
        workers: threads.
        report: called after each chunk.
    """
    chunks = list(_chunks(groups, R))
    parts: list[dict[str, Tensor]] = [{}] * len(chunks)

    def measure_one(number: int) -> None:
        problem, runs = chunks[number]
        snapshot = read(runs)
        parts[number] = function(snapshot, problem)
        if report is not None:
            report(len(snapshot.loss))

    for_each(measure_one, range(len(chunks)), workers)
    return {name: _in_order(groups, [part[name] for part in parts]) for name in parts[0]}


def select(snapshot: Snapshot, runs: Tensor | slice) -> Snapshot:
    """The snapshot of some of its runs."""
    parts = {
        field.name: value[:, runs] if field.name in _RUNS_SECOND else value[runs]
        for field in dataclasses.fields(snapshot)
        if isinstance(value := getattr(snapshot, field.name), Tensor) and field.name not in _NO_RUNS
    }
    return dataclasses.replace(snapshot, **parts)


def _chunks(groups: Sequence[ProblemGroup], R: int) -> Iterator[tuple[Problem, Tensor | slice]]:
    """A problem and some of its runs; a stack of problems is measured whole."""
    for group in groups:
        count = R if group.runs is None else len(group.runs)
        size = max(1, count if group.problem.runs else MEASURED_AT_ONCE // group.problem.d)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield group.problem, part if group.runs is None else group.runs[part]


def _in_order(groups: Sequence[ProblemGroup], parts: Sequence[Tensor]) -> Tensor:
    """Join the parts of the groups in the order of all runs."""
    joined = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    places = [group.runs for group in groups if group.runs is not None]
    if not places:
        return joined
    return joined[torch.cat(places).argsort().to(joined.device)]

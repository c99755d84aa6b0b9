"""When a run is looked at, and the blocks of steps in between."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dln_momentum.arrays import is_integer
from dln_momentum.errors import raise_if_any
from dln_momentum.pace import Pace

MOST = 2**53
"""Steps up to which a float holds every integer."""
MOST_RECORDS = 10**6

SECONDS_A_BLOCK, SECONDS_A_CHECKPOINT = 5e-4, 1e-2
"""What a block of steps costs beside its steps, Lightning's part included, and what a checkpoint
costs that outlives a power failure; measured for a small run."""
TOLD_FROM = 600.0
"""Seconds of such a cost that a user is told of: ten minutes."""


@dataclass(frozen=True)
class RecordPlan:
    """Log-spaced recorded steps, the first (0) and the last among them.

    Blocks of steps end at every recorded step and at every multiple of ``block_size`` and of
    ``checkpoint_every``. No number of a run depends on where they end, so that without a
    ``block_size`` they may be as long as the run allows.

    Args:
        max_steps: the last step.
        records: how many steps to record, at most.
        block_size: steps to a block, at most; None for as many as a `Pace` gives.
        checkpoint_every: steps between checkpoints; 0 for none on the way.

    Raises:
        InputError: for what is no integer, or out of range: max_steps in [1, 2^53], records in
            [2, 10^6], block_size >= 1 or None and checkpoint_every >= 0.

    >>> plan = RecordPlan(max_steps=1000, records=8, block_size=300)
    >>> sorted(plan.recorded)
    [0, 1, 3, 10, 32, 100, 316, 1000]
    >>> list(plan.blocks(start=100))
    [(100, 300), (300, 316), (316, 600), (600, 900), (900, 1000)]
    """

    max_steps: int
    records: int
    block_size: int | None = None
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        raise_if_any(
            f"{key} = {value!r} must be an integer in [{least}, {most}]"
            for key, value, least, most in (
                ("max_steps", self.max_steps, 1, MOST),
                ("records", self.records, 2, MOST_RECORDS),
                ("block_size", self.block_size, 1, MOST),
                ("checkpoint_every", self.checkpoint_every, 0, MOST),
            )
            if not (is_integer(value, least, most) or (key == "block_size" and value is None))
        )

    @cached_property
    def recorded(self) -> frozenset[int]:
        """The steps to record."""
        spaced = np.geomspace(1, self.max_steps, max(self.records - 1, 1))
        return frozenset({0, self.max_steps, *(int(step) for step in spaced.round())})

    def costs(self) -> Iterator[str]:
        """What the keys cost beside the steps themselves, a line each, where that is long.

        It is a bound: a run that converges takes fewer steps.

        >>> list(RecordPlan(10**9, records=8, block_size=1).costs())
        ['block_size = 1 cuts max_steps = 1000000000 into 1000000000 blocks, which cost up to 139
        hours beside the steps themselves; a larger one, or null, costs less']
        """
        for key, every, seconds, advice in (
            ("block_size", self.block_size, SECONDS_A_BLOCK, "a larger one, or null,"),
            ("checkpoint_every", self.checkpoint_every, SECONDS_A_CHECKPOINT, "a larger one, or 0"),
        ):
            count = self.max_steps // every if every else 0
            if count * seconds > TOLD_FROM:
                what = "blocks" if key == "block_size" else "pieces with a checkpoint each"
                yield (
                    f"{key} = {every} cuts max_steps = {self.max_steps} into {count} {what}, which "
                    f"cost up to {in_words(count * seconds)} beside the steps themselves; {advice} "
                    "costs less"
                )

    def blocks(self, start: int, pace: Pace | None = None) -> Iterator[tuple[int, int]]:
        """(first, last) step of each block from ``start`` on, found as it is asked for.

        Args:
            start: the present step.
            pace: how long a block may be where the plan has no ``block_size``; None for no limit.
        """
        recorded = sorted(self.recorded)
        sizes = [size for size in (self.block_size, self.checkpoint_every) if size]
        while start < self.max_steps:
            stop = min(
                recorded[bisect_right(recorded, start)],
                *(start - start % size + size for size in sizes),
                self.max_steps,
            )
            if pace is not None and self.block_size is None:
                stop = min(stop, start + pace.steps)
            yield start, stop
            start = stop


def in_words(seconds: float) -> str:
    """A long time in its own unit.

    >>> in_words(900), in_words(5e5), in_words(1e9)
    ('15 minutes', '139 hours', '1.16e+04 days')
    """
    for unit, size, most in (("minutes", 60, 120), ("hours", 3600, 240)):
        if seconds < most * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"

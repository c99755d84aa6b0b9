"""When a run is looked at, and the blocks of steps in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dln_momentum.errors import raise_if_any


@dataclass(frozen=True)
class RecordPlan:
    """Log-spaced recorded steps, the first (0) and the last among them.

    Blocks of steps end at every recorded step and at every multiple of ``block_size`` and of
    ``checkpoint_every``, so that they are the same whether a run is resumed or not.

    Args:
        max_steps: the last step.
        records: how many steps to record, at most.
        block_size: steps to a block, at most.
        checkpoint_every: steps between checkpoints; 0 for none on the way.

    Raises:
        InputError: for max_steps < 1, records < 2, block_size < 1 or checkpoint_every < 0.

    >>> plan = RecordPlan(max_steps=1000, records=8, block_size=300)
    >>> sorted(plan.recorded)
    [0, 1, 3, 10, 32, 100, 316, 1000]
    >>> list(plan.blocks(start=100))
    [(100, 300), (300, 316), (316, 600), (600, 900), (900, 1000)]
    """

    max_steps: int
    records: int
    block_size: int
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        raise_if_any(
            f"{key} = {value!r} must be >= {least}"
            for key, value, least in (
                ("max_steps", self.max_steps, 1),
                ("records", self.records, 2),
                ("block_size", self.block_size, 1),
                ("checkpoint_every", self.checkpoint_every, 0),
            )
            if value < least
        )

    @cached_property
    def recorded(self) -> frozenset[int]:
        """The steps to record."""
        spaced = np.geomspace(1, self.max_steps, max(self.records - 1, 1))
        return frozenset({0, self.max_steps, *(int(step) for step in spaced.round())})

    def blocks(self, start: int) -> Iterator[tuple[int, int]]:
        """(first, last) step of each block from ``start`` on."""
        every = self.checkpoint_every or self.max_steps
        ends = {*self.recorded, *range(0, self.max_steps, self.block_size)}
        ends |= {*range(0, self.max_steps, every)}
        for stop in sorted(end for end in ends if end > start):
            yield start, stop
            start = stop

"""The recorded states of an integration: every step while they fit in memory, then some of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dln_momentum.flows.step_sums import StepSums

MOST_BYTES = 2**26
"""States of the solver's steps that are kept."""
FEWEST = 512
"""States that are kept whatever their size."""
SHARE = 0.75
"""What remains of them when they become too many, at most: log-spaced times."""

Sums = Callable[[np.ndarray, np.ndarray], StepSums]
"""From times [T] and states [T, size] of successive steps to the sums over these steps."""


class KeptSteps:
    """Times and states of an integration, in a buffer that is allocated once.

    Where every step is recorded and the buffer is full, the steps between log-spaced times are
    left out. What a later sum over them needs is summed before, by ``sums``.

    Args:
        size: entries of a state.
        outputs: output times, all of which are kept; None for none.
        sums: the sums over steps; None where only output times are recorded.
    """

    def __init__(self, size: int, outputs: np.ndarray | None, sums: Sums | None) -> None:
        self._outputs = np.empty(0) if outputs is None else outputs
        self._sums_of = sums
        rows = 0 if sums is None else max(FEWEST, MOST_BYTES // (8 * size))
        # both ends of the integration are recorded besides
        rows += len(self._outputs) + 2
        self._t, self._states = np.empty(rows), np.empty((rows, size))
        self._count = 0
        self._sums: StepSums | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def t(self) -> np.ndarray:
        """The recorded times, [T]."""
        return self._t[: self._count]

    @property
    def states(self) -> np.ndarray:
        """The states at these times, [T, size]; a view."""
        return self._states[: self._count]

    def append(self, t: float, state: np.ndarray) -> None:
        """Record a state; a time that is there already is not repeated."""
        if self._count and not t > self._t[self._count - 1]:
            return
        if self._count == len(self._t):
            self._thin()
        self._t[self._count], self._states[self._count] = t, state
        self._count += 1

    def sums(self) -> StepSums | None:
        """The sums between the recorded times; None if every step is among these."""
        return None if self._sums is None else self._summed_up()

    def _summed_up(self) -> StepSums:
        """The sums so far, the steps since the last thinning included."""
        assert self._sums_of is not None
        first = 0 if self._sums is None else len(self._sums)
        found = self._sums_of(self.t[first:], self.states[first:])
        if self._sums is None:
            return found
        whole = self._sums.with_room(first + len(found))
        whole.put(first, found)
        return whole

    def _thin(self) -> None:
        t = self.t
        grid = np.geomspace(t[1], t[-1], int(SHARE * (len(t) - len(self._outputs))))
        log_spaced = np.searchsorted(t, grid).clip(max=len(t) - 1)
        required = np.flatnonzero(np.isin(t, self._outputs))
        places = np.unique(np.concatenate([[0, 1, len(t) - 1], log_spaced, required]))
        self._sums = self._summed_up().merged(torch.from_numpy(places))
        # in place: the places rise, so that no row is overwritten before it is read
        for row, place in enumerate(places):
            self._t[row], self._states[row] = self._t[place], self._states[place]
        self._count = len(places)

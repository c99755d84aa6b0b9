"""How much memory a sweep will take, so that one that does not fit is refused before it starts."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAM = 1.0
"""What the program and the workspace of a few pieces of runs take, in 2^30 bytes."""

SCALARS = 18
"""Numbers that the monitors keep of every run at every record."""


@dataclass(frozen=True)
class Footprint:
    """The sizes that decide how much memory a sweep takes.

    >>> sweep = Footprint(1024, n=20, d=30, test_rows=100, data_sets=1, records=50, points=4096)
    >>> f"{sweep.gigabytes:.2f}"
    '1.11'
    """

    runs: int
    """of the largest piece, which is all that is trained at once"""
    n: int
    d: int
    test_rows: int
    data_sets: int
    records: int
    points: int
    """of the grid, whose results are put together at the end"""
    path_sums: str = "telescoped"
    """as in `EngineOptions`"""
    trajectories: bool = False
    """whether the history keeps values per coordinate"""

    @property
    def gigabytes(self) -> float:
        """The peak, in 2^30 bytes; on the high side by a tenth to a half where it was measured."""
        doubles = self.runs * self._doubles_a_run + self.data_sets * self._doubles_a_data_set
        doubles += 2 * self.points * self._doubles_a_point
        return PROGRAM + 8 * doubles / 2**30

    @property
    def _doubles_a_run(self) -> int:
        d = self.d
        # what is summed of w_+- and of their products, and the iterates it has come to
        carried = {"gradient_sum": 0, "direct": 3, "telescoped": 5}[self.path_sums] * d
        state = 6 * d + 2 * self.n + carried
        parameters = 4 * d  # u, v and their increments
        snapshot = 7 * d + carried
        # a snapshot is kept while the next is made; a checkpoint copies what it holds
        return 2 * (state + parameters + snapshot) + 3 * self._history

    @property
    def _history(self) -> int:
        return self.records * (SCALARS + (7 * self.d if self.trajectories else 0))

    @property
    def _doubles_a_point(self) -> int:
        return 8 * self.d + 30 + self._history

    @property
    def _doubles_a_data_set(self) -> int:
        return (4 * self.n + self.test_rows) * self.d  # X, its two scaled forms, its row space

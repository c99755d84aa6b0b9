"""How much memory runs will take, so that what does not fit is refused before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dln_momentum.memory import available_bytes
from dln_momentum.wide_rows import LARGE

PROGRAM = 1.0
"""What the program and the workspace of a few pieces of runs take, in 2^30 bytes."""

SCALARS = 18
"""Numbers that the monitors keep of every run at every record."""


@dataclass(frozen=True)
class Footprint:
    """The sizes that decide how much memory runs take.

    >>> sweep = Footprint(1024, n=20, d=30, test_rows=100, data_sets=1, records=50, points=4096)
    >>> f"{sweep.gigabytes:.2f}"
    '1.11'
    """

    runs: int
    """that are trained at once; of a sweep those of the largest piece"""
    n: int
    d: int
    test_rows: int = 0
    data_sets: int = 1
    records: int = 0
    points: int = 0
    """of a grid, whose results are put together at the end"""
    path_sums: str = "telescoped"
    """as in `EngineOptions`"""
    trajectories: bool = False
    """whether the history keeps values per coordinate"""
    plain: bool = True
    """whether the method is heavy ball at constant rates; the general kernels carry more"""

    @property
    def gigabytes(self) -> float:
        """The peak, in 2^30 bytes; on the high side by a tenth to a half where it was measured."""
        doubles = self.runs * self._doubles_a_run + self.data_sets * self._doubles_a_data_set
        doubles += 2 * self.points * self._doubles_a_point
        return PROGRAM + 8 * doubles / 2**30

    @property
    def engine_gigabytes(self) -> float:
        """What an engine takes beside the data and starts that it is given, in 2^30 bytes."""
        doubles = self.runs * self._state + self.data_sets * self._copies * self.n * self.d
        return 8 * doubles / 2**30

    def errors(self, key: str) -> Iterator[str]:
        """What is wrong with a study that does not fit into the memory that is left.

        Args:
            key: what makes it large, as ``records = 1000``.
        """
        # the program and the data are there already
        data = 8 * self.data_sets * (self.n + self.test_rows) * self.d / 2**30
        yield from self._errors(key, self.gigabytes - PROGRAM - data)

    def engine_errors(self, key: str) -> Iterator[str]:
        """What is wrong with runs whose engine does not fit into the memory that is left."""
        yield from self._errors(key, self.engine_gigabytes)

    def _errors(self, key: str, needed: float) -> Iterator[str]:
        room = available_bytes() / 2**30
        if needed > room:
            number = f"{self.runs or self.points} runs" if self.runs != 1 else "1 run"
            recorded = f", recorded {self.records} times," if self.records else ""
            yield (
                f"{key} is too large: {number} of (n, d) = {(self.n, self.d)}{recorded} would take "
                f"{needed:.3g} GiB more, {room:.3g} GiB of memory are available"
            )

    @property
    def _carried(self) -> int:
        """What is summed of w_+- and of their products, and the iterates that it has come to."""
        # S_+-, T_k and the iterates; of a snapshot increments and the points ahead as well
        vectors = {"gradient_sum": 0, "direct": 3, "telescoped": 5}[self.path_sums]
        return (vectors if self.plain else 7) * self.d

    @property
    def _state(self) -> int:
        return 6 * self.d + 2 * self.n + self._carried

    @property
    def _doubles_a_run(self) -> int:
        parameters = 4 * self.d  # u, v and their increments
        snapshot = 7 * self.d + self._carried
        # a snapshot is kept while the next is made; a checkpoint copies what it holds
        return 2 * (self._state + parameters + snapshot) + 3 * self._history

    @property
    def _history(self) -> int:
        return self.records * (SCALARS + (7 * self.d if self.trajectories else 0))

    @property
    def _doubles_a_point(self) -> int:
        return 8 * self.d + 30 + self._history

    @property
    def _copies(self) -> int:
        """Of X in an engine: its two layouts, and its scaled form unless X is large and shared.

        Rates of the coordinates need that form too; they are of the methods that are not plain.
        """
        alone = self.n * self.d >= LARGE and self.plain and self.data_sets == 1
        return 2 if alone else 3

    @property
    def _doubles_a_data_set(self) -> int:
        return ((1 + self._copies) * self.n + self.test_rows) * self.d

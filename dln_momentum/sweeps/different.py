"""Which points of a grid are alike: different rows of columns with one number for each point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd


class Different(NamedTuple):
    """The different rows, in lexicographic order."""

    first: np.ndarray
    """the first point that has each row, int64 [G]"""
    of_point: np.ndarray
    """which row each point has, int64 [P]"""

    def members(self) -> list[np.ndarray]:
        """The points that have each row, ascending, one array for each."""
        order = np.argsort(self.of_point, kind="stable")
        counts = np.bincount(self.of_point, minlength=len(self.first))
        return np.split(order, np.cumsum(counts)[:-1])


def different(*columns: np.ndarray) -> Different:
    """The different rows of some columns [P] each.

    ``np.unique(axis=0)`` compares rows byte by byte, which takes a second for each column of a
    million points; pandas numbers the values of each column first.

    >>> first, of_point = different(np.array([1, 0, 1]), np.array([0.5, 2.0, 0.5]))
    >>> first.tolist(), of_point.tolist()
    ([1, 0], [1, 0, 1])
    """
    table = pd.DataFrame(dict(enumerate(columns)))
    of_point = table.groupby(list(table), dropna=False).ngroup().to_numpy()
    return Different(np.unique(of_point, return_index=True)[1], of_point)

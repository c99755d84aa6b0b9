"""Which points of a grid are alike: different rows of columns with one number for each point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LARGEST = 2**62
"""Numbers of rows that fit into int64, with room to spare."""


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

    Rows are numbered in mixed radix, so that one sort of integers is enough: ``np.unique(axis=0)``
    compares rows byte by byte, and takes a second for each column of a million points.

    >>> first, of_point = different(np.array([1, 0, 1]), np.array([0.5, 2.0, 0.5]))
    >>> first.tolist(), of_point.tolist()
    ([1, 0], [1, 0, 1])
    """
    number, size = np.zeros(len(columns[0]), np.int64), 1
    if not len(number):
        return Different(number, number)
    for column in columns:
        if column.dtype.kind not in "bi":
            column = np.unique(column, return_inverse=True)[1].reshape(-1)
        column = column.astype(np.int64)
        low, values = int(column.min()), int(column.max()) - int(column.min()) + 1
        if values == 1:
            continue
        if size * values > LARGEST:
            number = np.unique(number, return_inverse=True)[1].reshape(-1)
            size = int(number.max()) + 1
        number, size = number * values + (column - low), size * values
    if size == 1:
        return Different(np.zeros(1, np.int64), number)
    _, first, of_point = np.unique(number, return_index=True, return_inverse=True)
    return Different(first, of_point.reshape(-1))

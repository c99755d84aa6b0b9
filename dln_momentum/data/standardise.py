"""Centred and scaled columns and targets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dln_momentum.data.rows import Rows
from dln_momentum.errors import raise_if_any
from dln_momentum.problem_checks import LARGEST_ENTRY

CONSTANT_RANGE = 1e-12
"""A column whose range is below this fraction of its largest entry counts as constant."""


def standardised(rows: Rows) -> Rows:
    """Give every column, and the targets, mean 0 and variance 1 on the training rows.

    With column means m, deviations sigma, and mean a and deviation b of y,

        X' = (X - 1 m^T) diag(1/sigma),    y' = (y - a 1) / b,    theta*' = sigma theta* / b.

    Centred columns are orthogonal to 1, so X' has rank n - 1 at most and only a centred y' lies in
    its range. y = X theta* gives y' = X' theta*', and a sparse theta* stays sparse. Constant
    columns are dropped and noted. Test rows are mapped with the training statistics.

    Args:
        rows: the arrays. If they do not fit together they are returned unchanged, and `Problem`
            raises the error.

    Raises:
        InputError: if y or every column is constant.

    >>> rows = standardised(Rows(X=np.array([[1.0, 5.0], [3.0, 5.0]]), y=np.array([0.0, 4.0])))
    >>> rows.X.tolist(), rows.y.tolist(), rows.notes
    ([[-1.0], [1.0]], [-1.0, 1.0], ('constant columns dropped: 1',))
    """
    if not _fit_together(rows):
        return rows
    raise_if_any(_out_of_range(rows))
    kept = ~_constant(rows.X)
    constant = {f"X: all {kept.size} columns are": not kept.any(), "y:": _constant(rows.y)}
    raise_if_any(f"{what} constant on the training rows" for what, so in constant.items() if so)
    X, mean, scale = rows.X[:, kept], rows.X[:, kept].mean(0), rows.X[:, kept].std(0)
    a, b = rows.y.mean(), rows.y.std()
    theta_star, X_test, y_test = rows.theta_star, rows.X_test, rows.y_test
    dropped = ", ".join(map(str, np.flatnonzero(~kept)))
    return Rows(
        X=(X - mean) / scale,
        y=(rows.y - a) / b,
        theta_star=None if theta_star is None else scale * theta_star[kept] / b,
        X_test=None if X_test is None else (X_test[:, kept] - mean) / scale,
        y_test=None if y_test is None else (y_test - a) / b,
        notes=(*rows.notes, *([f"constant columns dropped: {dropped}"] if dropped else [])),
    )


def _out_of_range(rows: Rows) -> Iterator[str]:
    """Columns whose deviation would overflow or underflow."""
    for key, values in (("X", rows.X), ("y", rows.y[:, None])):
        largest = np.abs(values).max(axis=0)
        bad = (largest > LARGEST_ENTRY) | ((largest < 1 / LARGEST_ENTRY) & (largest > 0))
        if bad.any():
            where = f"column {int(np.flatnonzero(bad)[0])} of X" if key == "X" else "y"
            yield (
                f"{where} has the largest entry {largest[bad][0]:g} in size, must be in "
                f"[{1 / LARGEST_ENTRY:g}, {LARGEST_ENTRY:g}] to be standardised: rescale it"
            )


def _constant(values: np.ndarray) -> np.ndarray:
    return np.ptp(values, axis=0) <= CONSTANT_RANGE * np.abs(values).max(axis=0)


def _fit_together(rows: Rows) -> bool:
    given = [
        a for a in (rows.X, rows.y, rows.theta_star, rows.X_test, rows.y_test) if a is not None
    ]
    if any(a.dtype != np.float64 or not np.isfinite(a).all() for a in given):
        return False
    X, theta_star, X_test = rows.X, rows.theta_star, rows.X_test
    return (
        X.ndim == 2
        and X.size > 0
        and rows.y.shape == X.shape[:1]
        and (theta_star is None or theta_star.shape == X.shape[1:])
        and (X_test is None or X_test.shape[1:] == X.shape[1:])
    )

"""Two real data sets of scikit-learn, with fewer training rows than columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dln_momentum.arrays import is_integer
from dln_momentum.data.rows import Rows
from dln_momentum.data.standardise import standardised
from dln_momentum.errors import raise_if_any
from dln_momentum.extras import naming_extra
from dln_momentum.problem import Problem
from dln_momentum.seeding import is_seed


def diabetes(n: int = 20, *, seed: int = 0) -> Problem:
    """Disease progression of diabetes patients (Efron et al., Annals of Statistics 2004).

    The 10 features of scikit-learn's ``load_diabetes`` (each centred over all 442 patients) with
    their 45 products and 10 squares make 65 columns. `seed` draws the n training rows; the other
    442 - n are the test rows. Columns and targets are standardised on the training rows, so X has
    rank n - 1. Sex takes two values, so its square repeats its own column; X keeps both.

    Args:
        n: number of training rows, in [2, 64].
        seed: integer in [0, 2^64).

    Raises:
        InputError: for an n or seed out of range, or without scikit-learn.

    >>> problem = diabetes()
    >>> problem.n, problem.d, problem.row_space.rank, problem.X_test.shape[0]
    (20, 65, 19, 422)
    """
    raise_if_any(_problems(n, 64, seed))
    with naming_extra():
        from sklearn.datasets import load_diabetes

    data: Any = load_diabetes()
    pairs = itertools.combinations(range(data.data.shape[1]), 2)
    products = [data.data[:, i] * data.data[:, j] for i, j in pairs]
    X = np.column_stack([data.data, *products, data.data**2])
    return _split(X, data.target, n, seed, f"diabetes n={n} seed={seed}")


def digits(
    n: int = 30, classes: Sequence[int] = (0, 1), *, seed: int = 0, loss: str = "squared"
) -> Problem:
    """Two classes of handwritten digits, 8 x 8 pixels, with labels -1 and +1.

    `seed` draws n training images of the two classes from scikit-learn's ``load_digits``; the other
    images of these classes are the test rows. Pixels constant on the training rows are dropped, so
    d depends on the draw; the others are standardised on the training rows, and so are the labels
    for the squared loss.

    Args:
        n: number of training rows, >= 2 and below the number of pixels that vary (at most 64).
        classes: two different digits; the first has label -1, the second +1.
        seed: integer in [0, 2^64).
        loss: ``squared``, ``logistic`` (the natural loss of two classes) or ``exponential``.

    Raises:
        InputError: for arguments out of range, n >= d, a draw of one class only, or without
            scikit-learn.

    >>> problem = digits()
    >>> problem.n, problem.d, problem.row_space.rank, problem.X_test.shape[0]
    (30, 46, 29, 330)
    >>> digits(loss="logistic").y.unique()
    tensor([-1.,  1.], dtype=torch.float64)
    """
    raise_if_any([*_problems(n, 63, seed), *_class_problems(classes)])
    with naming_extra():
        from sklearn.datasets import load_digits

    data: Any = load_digits()
    chosen = np.isin(data.target, list(classes))
    labels = np.where(data.target[chosen] == classes[1], 1.0, -1.0)
    name = f"digits {classes[0]} against {classes[1]} n={n} seed={seed}"
    return _split(data.data[chosen], labels, n, seed, name).with_loss(loss)


def _split(X: np.ndarray, y: np.ndarray, n: int, seed: int, name: str) -> Problem:
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n], order[n:]
    rows = Rows(X=X[train], y=y[train], X_test=X[test], y_test=y[test])
    return Problem(**vars(standardised(rows)), name=name)


def _problems(n: Any, most: int, seed: Any) -> Iterator[str]:
    if not is_integer(n, 2, most):
        yield f"n = {n!r} must be an integer in [2, {most}]"
    if not is_seed(seed):
        yield f"seed = {seed!r} must be an integer in [0, 2^64)"


def _class_problems(classes: Any) -> Iterator[str]:
    digits = list(classes) if isinstance(classes, Sequence) else [classes]
    if not all(is_integer(c, 0, 9) for c in digits) or len(digits) != 2 or len(set(digits)) != 2:
        yield f"classes = {digits} must be two different digits in [0, 9]"

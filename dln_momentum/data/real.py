"""Two real data sets that come with scikit-learn, cut to fewer rows than columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dln_momentum.data.checks import is_integer
from dln_momentum.data.standardise import Rows, standardised
from dln_momentum.problem import Problem, ProblemError
from dln_momentum.seeding import is_seed

DIABETES_ROWS, DIABETES_COLUMNS = 442, 65


def diabetes(n: int = 20, *, seed: int = 0) -> Problem:
    """Disease progression of diabetes patients (Efron et al., Annals of Statistics 2004).

    The 10 features of scikit-learn's ``load_diabetes`` (each centred over all 442 patients) with
    their 45 products and 10 squares make 65 columns. n rows drawn by `seed` train, the other
    442 - n test; columns and targets are standardised with the statistics of the training rows, so
    X has rank n - 1. Sex takes two values, so its square repeats its own column: X keeps both.

    Args:
        n: number of training rows, in [2, 64].
        seed: integer in [0, 2^64).

    Raises:
        ProblemError: for an n or seed out of range.

    >>> problem = diabetes()
    >>> problem.n, problem.d, problem.row_space.rank, problem.X_test.shape[0]
    (20, 65, 19, 422)
    """
    _refuse_bad(n, DIABETES_COLUMNS - 1, seed)
    from sklearn.datasets import load_diabetes

    data: Any = load_diabetes()
    pairs = itertools.combinations(range(data.data.shape[1]), 2)
    products = [data.data[:, i] * data.data[:, j] for i, j in pairs]
    X = np.column_stack([data.data, *products, data.data**2])
    return _split(X, data.target, n, seed, f"diabetes n={n} seed={seed}")


def digits(n: int = 30, classes: Sequence[int] = (0, 1), *, seed: int = 0) -> Problem:
    """Two classes of handwritten digits, 8 x 8 pixels, with labels -1 and +1.

    n images of the two classes in scikit-learn's ``load_digits``, drawn by `seed`, train; the other
    images of these classes test. Pixels constant on the training rows are dropped (so d depends on
    the draw), the others and the labels are standardised with the statistics of the training rows.

    Args:
        n: number of training rows, >= 2 and below the number of pixels that vary (at most 64).
        classes: two different digits; the first has label -1, the second +1.
        seed: integer in [0, 2^64).

    Raises:
        ProblemError: for arguments out of range, n >= d, or a draw of one class only.

    >>> problem = digits()
    >>> problem.n, problem.d, problem.row_space.rank, problem.X_test.shape[0]
    (30, 46, 29, 330)
    """
    _refuse_bad(n, 63, seed, _class_problems(classes))
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    chosen = np.isin(data.target, list(classes))
    labels = np.where(data.target[chosen] == classes[1], 1.0, -1.0)
    name = f"digits {classes[0]} against {classes[1]} n={n} seed={seed}"
    return _split(data.data[chosen], labels, n, seed, name)


def _split(X: np.ndarray, y: np.ndarray, n: int, seed: int, name: str) -> Problem:
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n], order[n:]
    rows = Rows(X=X[train], y=y[train], X_test=X[test], y_test=y[test])
    return Problem(**vars(standardised(rows)), name=name)


def _refuse_bad(n: Any, most: int, seed: Any, others: Iterable[str] = ()) -> None:
    problems = []
    if not is_integer(n, 2, most):
        problems.append(f"data.n = {n!r} must be an integer in [2, {most}]")
    if not is_seed(seed):
        problems.append(f"data.seed = {seed!r} must be an integer in [0, 2^64)")
    problems.extend(others)
    if problems:
        raise ProblemError(problems)


def _class_problems(classes: Any) -> Iterator[str]:
    digits = list(classes) if isinstance(classes, Sequence) else [classes]
    if len(digits) != 2 or len(set(digits)) != 2 or not all(is_integer(c, 0, 9) for c in digits):
        yield f"data.classes = {digits} must be two different digits in [0, 9]"

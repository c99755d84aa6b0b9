"""Margins of classification problems, for numbers, lists, arrays and tensors as in `theory`."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import checked
from dln_momentum.interface.theory import evaluated
from dln_momentum.problem import Problem
from dln_momentum.theory import classification
from dln_momentum.theory import max_margin as separating


def margins(problem: Problem, theta: ArrayLike) -> Any:
    """The margins y_i <x_i, theta> of classification, S + [n].

    (docs/theory.md#other-losses.)

    Args:
        problem: labels -1 and +1, ``loss="logistic"`` or ``"exponential"``.
        theta: predictor, [*S, d].

    Raises:
        InputError: for a problem of the squared loss.

    >>> margins(Problem(X=[[1, 2]], y=[-1], loss="logistic"), [1, -2]).tolist()
    [3.0]
    """
    return evaluated(lambda theta: classification.margins(problem, theta), problem, theta=theta)


def normalised_margin(problem: Problem, theta: ArrayLike, norm: str = "l1") -> Any:
    """The least margin over the norm of theta, which `max_margin` makes largest; shape S.

    Args:
        problem: classification.
        theta: predictor, [*S, d].
        norm: ``l1`` or ``l2``.

    >>> normalised_margin(Problem(X=[[1, 2]], y=[-1], loss="logistic"), [0, -2])
    2.0
    """
    order = _order(norm)
    return evaluated(
        lambda theta: classification.normalised_margin(problem, theta, order), problem, theta=theta
    )


def max_margin(problem: Problem, norm: str = "l1") -> Any:
    """argmin ||theta|| with y_i <x_i, theta> >= 1, the direction of largest margin, [*runs, d].

    (docs/theory.md#max-margin.) By a linear program for l1, where it may be one of several, and
    least squares with nonnegative unknowns for l2.

    Args:
        problem: classification.
        norm: ``l1`` or ``l2``.

    >>> problem = Problem(X=[[1, 2]], y=[-1], loss="logistic")
    >>> [(max_margin(problem, norm) + 0.0).round(4).tolist() for norm in ("l1", "l2")]
    [[0.0, -0.5], [-0.2, -0.4]]
    """
    checked(problem, None)
    _order(norm)
    raise_if_any(classification.classification_errors(problem))
    runs, n, d = problem.runs, problem.n, problem.d
    X = problem.X.expand(*runs, n, d).reshape(-1, n, d)
    y = problem.y.expand(*runs, n).reshape(-1, n)
    found = [separating.max_margin(*pair, norm) for pair in zip(X, y, strict=True)]
    return torch.stack(found).reshape(*runs, d).numpy()


def _order(norm: str) -> float:
    if norm not in ("l1", "l2"):
        raise InputError(f"norm = {norm!r} must be one of l1, l2")
    return 1.0 if norm == "l1" else 2.0

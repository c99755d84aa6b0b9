"""A word about data so small that the tolerance, an absolute loss, is met by theta = 0."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache

from dln_momentum.problem import Problem

logger = logging.getLogger(__name__)


def tell_of_small_targets(problems: Iterable[Problem], tol: float) -> None:
    """Log a warning, once a process, if theta = 0 fits some targets within the tolerance.

    L(0) = ||y||^2/(2n) <= tol: every run on such data from a theta near 0 has converged before its
    first step. That is legal, and y = 0 is meant to; other targets seldom are.
    """
    if not tol > 0:
        return
    for problem in problems:
        if problem.is_classification:
            continue
        size = problem.y.square().sum(-1) / (2 * problem.n)
        small = size[(size <= tol) & (problem.y != 0).any(-1)]
        if small.numel():
            _tell(f"{float(small.min()):.3g}", f"{tol:g}")


@cache
def _tell(size: str, tol: str) -> None:
    logger.warning(
        "||y||^2/(2n) = %s, the loss at theta = 0, is not above tol = %s: a run from there has"
        " converged at step 0; trainer.tol (tol in Python) must be below what it should reach",
        size,
        tol,
    )

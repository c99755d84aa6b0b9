"""Sparse recovery: random rows and an s-sparse vector behind the targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dln_momentum.arrays import is_integer, is_real
from dln_momentum.errors import raise_if_any
from dln_momentum.problem import Problem
from dln_momentum.seeding import is_seed

DESIGNS = ("gaussian", "uncentred", "correlated")
SIGNALS = ("gaussian", "signs")


def sparse(
    n: int = 20,
    d: int = 30,
    s: int = 3,
    *,
    design: str = "gaussian",
    mu: float = 1.0,
    rho: float = 0.5,
    signal: str | Sequence[float] = "gaussian",
    seed: int = 0,
    n_test: int = 100,
) -> Problem:
    """Draw y = X theta* with random rows and an s-sparse theta*.

    (docs/theory.md#problem; poster, section 3.)

    The training rows, theta* and the test rows come from three independent streams of `seed`, so
    that X does not depend on s, and a larger s adds coordinates to the same drawn theta*. The
    support is a uniformly random subset of the coordinates.

    Args:
        n: number of training rows, 1 <= n < d.
        d: number of coordinates.
        s: number of nonzero coordinates of theta*, 1 <= s <= d.
        design: law of the i.i.d. rows: ``gaussian`` N(0, I), ``uncentred`` N(mu 1, I),
            ``correlated`` N(0, Sigma) with Sigma_ij = rho^|i-j|.
        mu: mean of every entry; used by ``uncentred`` only.
        rho: correlation of neighbouring columns in (-1, 1); used by ``correlated`` only.
        signal: ``gaussian`` N(0, 1) values, ``signs`` uniform in {-1, +1}, or the s nonzero values
            themselves, in the order of their coordinates.
        seed: integer in [0, 2^64).
        n_test: number of held-out rows of the same law, 0 for none.

    Returns:
        A problem with theta_star and, if n_test > 0, noiseless test rows.

    Raises:
        InputError: listing every argument that is out of its range.

    >>> problem = sparse(n=4, d=6, s=2, signal="signs", seed=1)
    >>> problem.theta_star
    tensor([ 0.,  0., -1.,  1.,  0.,  0.], dtype=torch.float64)
    >>> sparse(n=30, d=20, s=0)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - n = 30 must be an integer in [1, d - 1] = [1, 19]
      - s = 0 must be an integer in [1, d] = [1, 20]
    """
    raise_if_any(_problems(n, d, s, design, mu, rho, signal, seed, n_test))
    rows, signals, test_rows = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3)
    )
    theta_star = torch.from_numpy(_signal(signals, d, s, signal))
    X = torch.from_numpy(_design(rows, n, d, design, mu, rho))
    X_test = torch.from_numpy(_design(test_rows, n_test, d, design, mu, rho)) if n_test else None
    return Problem(
        X=X,
        y=X @ theta_star,
        theta_star=theta_star,
        X_test=X_test,
        y_test=None if X_test is None else X_test @ theta_star,
        name=f"sparse n={n} d={d} s={s} {design} seed={seed}",
    )


def _design(
    rng: np.random.Generator, rows: int, d: int, design: str, mu: float, rho: float
) -> np.ndarray:
    noise = rng.standard_normal((rows, d))
    if design == "uncentred":
        return noise + mu
    if design == "correlated":
        lags = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
        return noise @ np.linalg.cholesky(np.power(float(rho), lags)).T
    return noise


def _signal(rng: np.random.Generator, d: int, s: int, signal: str | Sequence[float]) -> np.ndarray:
    # every coordinate is drawn before the support is chosen, so that supports are nested in s
    drawn = rng.standard_normal(d)
    support = np.sort(rng.permutation(d)[:s])
    theta_star = np.zeros(d)
    if isinstance(signal, str):
        theta_star[support] = (drawn if signal == "gaussian" else np.sign(drawn))[support]
    else:
        theta_star[support] = list(signal)
    return theta_star


def _problems(
    n: Any, d: Any, s: Any, design: Any, mu: Any, rho: Any, signal: Any, seed: Any, n_test: Any
) -> Iterator[str]:
    if not is_integer(d, 2):
        yield f"d = {d!r} must be an integer >= 2"
        d = math.inf
    if not is_integer(n, 1, d - 1):
        yield f"n = {n!r} must be an integer in [1, d - 1] = [1, {d - 1}]"
    if not is_integer(s, 1, d):
        yield f"s = {s!r} must be an integer in [1, d] = [1, {d}]"
    if design not in DESIGNS:
        yield f"design = {design!r} must be one of {', '.join(DESIGNS)}"
    if not is_real(mu):
        yield f"mu = {mu!r} must be a finite number"
    if not (is_real(rho) and -1 < rho < 1):
        yield f"rho = {rho!r} must be in (-1, 1)"
    if not is_seed(seed):
        yield f"seed = {seed!r} must be an integer in [0, 2^64)"
    if not is_integer(n_test, 0):
        yield f"n_test = {n_test!r} must be an integer >= 0"
    if isinstance(signal, str) or not isinstance(signal, Sequence | np.ndarray):
        if not isinstance(signal, str) or signal not in SIGNALS:
            yield f"signal = {signal!r} must be one of {', '.join(SIGNALS)}, or s numbers"
    elif len(signal) != s or not all(is_real(value) and value != 0 for value in signal):
        yield f"signal = {list(signal)} must be s = {s} finite nonzero numbers"

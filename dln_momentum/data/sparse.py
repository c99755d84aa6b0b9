"""Sparse recovery: random rows and an s-sparse vector behind the targets."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dln_momentum.arrays import is_integer, is_one_of, is_real, owned
from dln_momentum.errors import raise_if_any
from dln_momentum.memory import too_large
from dln_momentum.problem import Problem
from dln_momentum.problem_checks import LARGEST_ENTRY
from dln_momentum.seeding import is_seed

DESIGNS = ("gaussian", "uncentred", "correlated", "rademacher")
SIGNALS = ("gaussian", "nonnegative", "signs", "ones")
SUPPORTS = ("random", "first")


def sparse(
    n: int = 20,
    d: int = 30,
    s: int = 3,
    *,
    design: str = "gaussian",
    mu: float = 1.0,
    rho: float = 0.5,
    signal: str | Sequence[float] = "gaussian",
    support: str = "random",
    unit_norm: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    n_test: int = 100,
) -> Problem:
    """Draw y = X theta* + noise with random rows and an s-sparse theta*.

    (docs/theory.md#problem; poster, section 3.)

    The training rows, theta*, the test rows and the noise come from four independent streams of
    `seed`, so that X does not depend on s, a larger s adds coordinates to the same drawn theta*,
    and the noise changes neither. Noisy targets are interpolated too, since n < d; theta* then is
    the reference of the recovery error, and no interpolator.

    Args:
        n: number of training rows, 1 <= n < d; n = d = 1 is the scalar network.
        d: number of coordinates.
        s: number of nonzero coordinates of theta*, 1 <= s <= d.
        design: law of the i.i.d. rows: ``gaussian`` N(0, I), ``uncentred`` N(mu 1, I),
            ``correlated`` N(0, Sigma) with Sigma_ij = rho^|i-j|, ``rademacher`` uniform in
            {-1, +1}^d.
        mu: mean of every entry; used by ``uncentred`` only.
        rho: correlation of neighbouring columns in (-1, 1); used by ``correlated`` only.
        signal: the nonzero values: ``gaussian`` N(0, 1), ``nonnegative`` |N(0, 1)|, ``signs``
            uniform in {-1, +1}, ``ones``, or the s values themselves, in the order of their
            coordinates.
        support: the nonzero coordinates: ``random``, a uniformly random subset, or ``first``, the
            first s.
        unit_norm: whether theta* is divided by its norm; ``ones`` are then 1/sqrt(s) each.
        noise: standard deviation of the N(0, noise^2) that is added to each training target.
        seed: integer in [0, 2^64).
        n_test: number of held-out rows of the same law, 0 for none.

    Returns:
        A problem with theta_star and, if n_test > 0, noiseless test rows.

    Raises:
        InputError: listing every argument that is out of its range.

    >>> problem = sparse(n=4, d=6, s=2, signal="signs", seed=1)
    >>> problem.theta_star
    tensor([ 0.,  0., -1.,  1.,  0.,  0.], dtype=torch.float64)
    >>> sparse(n=4, d=6, s=4, signal="ones", support="first", unit_norm=True).theta_star
    tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    >>> sparse(n=30, d=20, s=0)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - n = 30 must be an integer in [1, d - 1] = [1, 19]
      - s = 0 must be an integer in [1, d] = [1, 20]
    """
    raise_if_any(_problems(**locals()))
    # the streams of further draws go to the end, so that those before them keep their numbers
    rows, signals, test_rows, noises = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(4)
    )
    theta_star = torch.from_numpy(_signal(signals, d, s, signal, support))
    if unit_norm:
        theta_star /= torch.linalg.vector_norm(theta_star)
    X = torch.from_numpy(_design(rows, n, d, design, mu, rho))
    X_test = torch.from_numpy(_design(test_rows, n_test, d, design, mu, rho)) if n_test else None
    y, noisy = X @ theta_star, ""
    if noise:
        y += noise * torch.from_numpy(noises.standard_normal(n))
        noisy = f" noise={noise:g}"
    return Problem(
        X=owned(X),
        y=y,
        theta_star=theta_star,
        X_test=owned(X_test),
        y_test=None if X_test is None else X_test @ theta_star,
        noise=noise,
        name=f"sparse n={n} d={d} s={s} {design}{noisy} seed={seed}",
    )


def _design(
    rng: np.random.Generator, rows: int, d: int, design: str, mu: float, rho: float
) -> np.ndarray:
    if design == "rademacher":
        signs = np.empty((rows, d))
        for row in signs:  # the integers of all rows would take as much memory again
            row[:] = rng.integers(2, size=d)
        signs *= 2
        signs -= 1
        return signs
    entries = rng.standard_normal((rows, d))
    if design == "uncentred":
        entries += mu
    if design == "correlated":
        # the Cholesky factor of Sigma as a recursion along each row, which needs no d x d matrix:
        # x_0 = e_0, x_i = rho x_{i-1} + sqrt(1 - rho^2) e_i
        entries[:, 1:] *= math.sqrt(1 - rho**2)
        for i in range(1, d):
            entries[:, i] += rho * entries[:, i - 1]
    return entries


def _signal(
    rng: np.random.Generator, d: int, s: int, signal: str | Sequence[float], support: str
) -> np.ndarray:
    # every coordinate is drawn before the support is chosen, so that supports are nested in s
    drawn = rng.standard_normal(d)
    places = np.sort(rng.permutation(d)[:s]) if support == "random" else np.arange(s)
    values = {
        "gaussian": drawn,
        "nonnegative": np.abs(drawn),
        "signs": np.sign(drawn),
        "ones": np.ones(d),
    }
    theta_star = np.zeros(d)
    theta_star[places] = values[signal][places] if isinstance(signal, str) else list(signal)
    return theta_star


def _size_errors(n: int, d: int, n_test: int) -> Iterator[str]:
    """What is wrong with a problem that does not fit into memory while it is drawn."""
    # X, X_test, and six vectors of length d behind theta*
    needed = 8 * d * (n + n_test + 6)
    key, value, least = ("n_test", n_test, 1) if n_test > d else ("d", d, n + 1)
    what = f"drawing {n} + {n_test} rows of {d} coordinates"
    yield from too_large(key, value, needed, what, least)


def _problems(
    n: Any, d: Any, s: Any, design: Any, mu: Any, rho: Any, signal: Any, support: Any,
    unit_norm: Any, noise: Any, seed: Any, n_test: Any,
) -> Iterator[str]:  # fmt: skip
    if not is_integer(d, 1):
        yield f"d = {d!r} must be an integer >= 1"
        d = math.inf
    # a network of one coordinate is determined by one row, and is studied nevertheless
    most = max(1, d - 1)
    if not is_integer(n, 1, most):
        yield f"n = {n!r} must be an integer in [1, d - 1] = [1, {most}]"
    if not is_integer(s, 1, d):
        yield f"s = {s!r} must be an integer in [1, d] = [1, {d}]"
    if not is_one_of(design, DESIGNS):
        yield f"design = {design!r} must be one of {', '.join(DESIGNS)}"
    if not (is_real(mu) and abs(mu) <= LARGEST_ENTRY):
        yield f"mu = {mu!r} must be a finite number of size <= {LARGEST_ENTRY:g}"
    if not (is_real(rho) and -1 < rho < 1):
        yield f"rho = {rho!r} must be in (-1, 1)"
    if not is_seed(seed):
        yield f"seed = {seed!r} must be an integer in [0, 2^64)"
    if not is_one_of(support, SUPPORTS):
        yield f"support = {support!r} must be one of {', '.join(SUPPORTS)}"
    if not isinstance(unit_norm, bool):
        yield f"unit_norm = {unit_norm!r} must be true or false"
    if not (is_real(noise) and 0 <= noise <= LARGEST_ENTRY):
        yield f"noise = {noise!r} must be a finite number in [0, {LARGEST_ENTRY:g}]"
    if not is_integer(n_test, 0):
        yield f"n_test = {n_test!r} must be an integer >= 0"
    elif is_integer(d, 1) and is_integer(n, 1, most):
        yield from _size_errors(n, d, n_test)
    if isinstance(signal, str) or not isinstance(signal, Sequence | np.ndarray):
        if not isinstance(signal, str) or signal not in SIGNALS:
            yield f"signal = {signal!r} must be one of {', '.join(SIGNALS)}, or s numbers"
    elif len(signal) != s or not all(
        is_real(x) and 1 / LARGEST_ENTRY <= abs(x) <= LARGEST_ENTRY for x in signal
    ):
        yield (
            f"signal = {reprlib.repr(list(signal))} must be s = {s} finite nonzero numbers of size "
            f"{1 / LARGEST_ENTRY:g} to {LARGEST_ENTRY:g}"
        )

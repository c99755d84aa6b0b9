"""The poster's discrete-time theorem and its identities, on random problems, batches and signs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice, pairwise

import mpmath
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dln_momentum import DiagonalLinearNet, sparse
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine import reference_iterates
from dln_momentum.theory.discrete_bias import (
    asymptotic_balancedness,
    boundary_term,
    kkt_residual,
    log_abs_ratio,
    log_free_balance,
    log_init,
    log_perturbed_init_norm,
    path_sum_increment,
    path_sums_from_gradients,
)

STEPS = 60


def short_run(seed: int, gamma: float, beta: float, batch_size: int | None, alpha: float = 0.5):
    """(w_+, w_-) of every iterate of a short mini-batch run, its gradients and its problem."""
    problem = sparse(4, 7, 2, seed=seed)
    net = DiagonalLinearNet.gaussian(7, alpha=alpha, seed=seed)
    u, v = net.u.detach(), net.v.detach()
    batches = BatchStream(4, batch_size, "with_replacement", seed)
    weights = batches.weights(0, STEPS)
    weights = None if weights is None else weights[:, 0]
    pairs = [(u, v), *islice(reference_iterates(problem, u, v, gamma, beta, weights), STEPS)]
    gradients = []
    for k, (u, v) in enumerate(pairs[:-1]):
        residual = problem.residual(u * v)
        residual = residual if weights is None else residual * weights[k]
        gradients.append(problem.X.T @ residual / problem.n)
    return problem, [(u + v, u - v) for u, v in pairs], torch.stack(gradients)


def total(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms)).sum(0)


def conditioning(iterates: list) -> float:
    """How much the logarithms amplify rounding: 1 over the smallest |w| relative to a step.

    It is inf or nan, below no bound, where a run has overflowed.
    """
    w = torch.stack([torch.stack(pair) for pair in iterates])
    return float((w[:-1].abs().amax() + 1) / w.abs().amin())


runs = {
    "seed": st.integers(0, 10_000),
    # large steps on a wide start: sign changes are common
    "gamma": st.floats(1e-3, 0.1),
    "beta": st.floats(0.0, 0.95),
    "batch_size": st.sampled_from([None, 1, 2, 3]),
}


@settings(deadline=None, max_examples=60)
@given(**runs)
def test_finite_step_identity(seed: int, gamma: float, beta: float, batch_size: int | None) -> None:
    """(docs/theory.md#finite-step-identity.)"""
    _, iterates, gradients = short_run(seed, gamma, beta, batch_size)
    # beyond, the tolerance would be that of S itself
    assume(conditioning(iterates) < 1e4)
    for i, sign in ((0, 1), (1, -1)):
        w = [pair[i] for pair in iterates]
        direct = total(path_sum_increment(a, b, beta) for a, b in pairwise(w))
        boundary = boundary_term(w[-2], w[-1], beta)
        closed = path_sums_from_gradients(
            w[0], w[-1], boundary, gradients.sum(0), gamma / (1 - beta), sign
        )
        # u +- v cancels at 1e-16, 1/|w| amplifies it near a zero, 1/(1-beta) and STEPS add up
        tolerance = 1e-15 * STEPS * conditioning(iterates) ** 2 / (1 - beta)
        torch.testing.assert_close(direct, closed, rtol=1e-11, atol=max(tolerance, 1e-12))


@settings(deadline=None, max_examples=60)
@given(**runs)
def test_log_free_identity(seed: int, gamma: float, beta: float, batch_size: int | None) -> None:
    """(docs/theory.md#log-free-identity.)"""
    _, iterates, _ = short_run(seed, gamma, beta, batch_size)
    size = torch.stack([p for p, _ in iterates] + [m for _, m in iterates]).abs().max()
    assume(bool(size.isfinite()))
    products = total((b[0] - a[0]) * (b[1] - a[1]) for a, b in pairwise(iterates))
    predicted = log_free_balance(iterates[0], iterates[-2], iterates[-1], products, beta)
    measured = iterates[-1][0] * iterates[-1][1]
    # no singularity: rounding of squares of the largest iterate, over 1 - beta
    tolerance = 1e-15 * STEPS * float(size) ** 2 / (1 - beta)
    torch.testing.assert_close(predicted, measured, rtol=0, atol=tolerance)


@settings(deadline=None, max_examples=40)
@given(**runs)
def test_every_iterate_is_the_minimiser_on_its_own_level_set(
    seed: int, gamma: float, beta: float, batch_size: int | None
) -> None:
    """(docs/theory.md#along-the-path.)"""
    problem, iterates, _ = short_run(seed, gamma, beta, batch_size)
    w = torch.stack([torch.stack(pair) for pair in iterates], 1)
    assume(conditioning(iterates) < 1e3)
    kept = [
        total(path_sum_increment(a, b, beta) for a, b in zip(w[i], w[i, 1:], strict=False))
        + boundary_term(w[i, -2], w[i, -1], beta)
        for i in (0, 1)
    ]
    theta = (w[0, -1] ** 2 - w[1, -1] ** 2) / 4
    balancedness = (w[0, -1] * w[1, -1]).abs()
    predicted = asymptotic_balancedness((w[0, 0] * w[1, 0]).abs(), *kept)
    # S~ carries about 1e-15 STEPS conditioning/(1-beta) <= 1e-9
    torch.testing.assert_close(predicted, balancedness, rtol=1e-9, atol=0)
    c = log_init(w[0, 0], w[1, 0], *kept)
    assert kkt_residual(problem.row_space, theta, balancedness, c) < 1e-8


def test_path_sums_against_forty_digits() -> None:
    """The same short run in 40-digit arithmetic: our S differs by float64 rounding alone."""
    gamma, beta = 0.05, 0.9
    _, iterates, _ = short_run(3, gamma, beta, None, alpha=0.3)
    problem = sparse(4, 7, 2, seed=3)
    with mpmath.workdps(40):
        X = mpmath.matrix(problem.X.tolist())
        y = mpmath.matrix(problem.y.tolist())
        u = [mpmath.mpf(float(p + m)) / 2 for p, m in zip(*iterates[0], strict=True)]
        v = [mpmath.mpf(float(p - m)) / 2 for p, m in zip(*iterates[0], strict=True)]
        exact = _mpmath_path_sums(X, y, u, v, mpmath.mpf(gamma), mpmath.mpf(beta))
    for i in (0, 1):
        w = [pair[i] for pair in iterates]
        ours = total(path_sum_increment(a, b, beta) for a, b in pairwise(w))
        # rounding of u +- v and of the increments, over 1 - beta = 0.1, in 60 steps
        torch.testing.assert_close(
            ours, torch.tensor(exact[i], dtype=w[0].dtype), rtol=1e-11, atol=1e-13
        )


def _mpmath_path_sums(X, y, u, v, gamma, beta):
    n, d = X.rows, X.cols
    before, now = (u, v), (u, v)
    sums = [[mpmath.mpf(0)] * d, [mpmath.mpf(0)] * d]
    r = lambda z: z - 1 - mpmath.log(abs(z))  # noqa: E731
    for _ in range(STEPS):
        theta = [a * b for a, b in zip(*now, strict=True)]
        residual = X * mpmath.matrix(theta) - y
        g = X.T * residual / n
        after = tuple(
            [
                now[i][j] - gamma * g[j] * now[1 - i][j] + beta * (now[i][j] - before[i][j])
                for j in range(d)
            ]
            for i in (0, 1)
        )
        for i, sign in ((0, 1), (1, -1)):
            for j in range(d):
                z = (after[0][j] + sign * after[1][j]) / (now[0][j] + sign * now[1][j])
                sums[i][j] += (r(z) + beta * r(1 / z)) / (1 - beta)
        before, now = now, after
    return [[float(x) for x in row] for row in sums]


@given(st.floats(1e-12, 1e12), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-6))
def test_log_abs_ratio(w: float, z: float) -> None:
    pair = torch.tensor([w, w * z], dtype=torch.float64)
    exact = float(mpmath.log(abs(mpmath.mpf(pair[1].item()) / mpmath.mpf(w))))
    assert log_abs_ratio(pair[0], pair[1]).item() == pytest.approx(exact, rel=1e-13, abs=3e-16)


def test_gradient_descent_gives_the_known_product_formula() -> None:
    """At beta = 0, Delta_k = Delta_0 prod |1 - (gamma g_k)^2|, as w_+- -> w_+- (1 -+ gamma g)."""
    gamma = 0.05
    _, iterates, gradients = short_run(5, gamma, 0.0, None)
    sums = [
        total(path_sum_increment(a[i], b[i], 0.0) for a, b in pairwise(iterates)) for i in (0, 1)
    ]
    start = (iterates[0][0] * iterates[0][1]).abs()
    product = start * (1 - (gamma * gradients) ** 2).abs().prod(0)
    torch.testing.assert_close(asymptotic_balancedness(start, *sums), product, rtol=1e-11, atol=0)


@pytest.mark.parametrize("c", [1e-8, 0.5, 30.0, 600.0])
def test_log_norm_of_the_perturbed_initialisation(c: float) -> None:
    delta = torch.tensor([0.02, 3.0], dtype=torch.float64)
    log_norm = log_perturbed_init_norm(delta, torch.tensor([c, -c / 2], dtype=torch.float64))
    exact = mpmath.sqrt(
        (mpmath.mpf(0.02) / 2 * mpmath.sinh(c)) ** 2 + (mpmath.mpf(1.5) * mpmath.sinh(c / 2)) ** 2
    )
    assert log_norm.item() == pytest.approx(float(mpmath.log(exact)), rel=1e-14, abs=1e-14)


def test_no_perturbation_has_log_norm_minus_infinity() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    assert log_perturbed_init_norm(zero + 1, zero).item() == -math.inf


def test_a_start_is_its_own_minimiser_to_rounding() -> None:
    """At step 0 theta is theta~_0: what is left of z is rounding, which has no direction."""
    problem = sparse(5, 8, 2, seed=0)
    net = DiagonalLinearNet.gaussian(8, alpha=1.0, seed=1, runs=(50,))
    zero = torch.zeros_like(net.theta)
    c = log_init(net.w_plus, net.w_minus, zero, zero)
    residual = kkt_residual(problem.row_space, net.theta, net.balancedness, c)
    assert (residual == 0).all()
    # any other theta is seen, however near
    away = net.theta * (1 + 1e-9)
    assert (kkt_residual(problem.row_space, away, net.balancedness, c) > 0.1).all()
    assert kkt_residual(problem.row_space, away * torch.nan, net.balancedness, c).isnan().all()

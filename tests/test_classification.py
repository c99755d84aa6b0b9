"""Labels -1 and +1: the identity in 50 digits, minimisers under margins, max-margin directions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cvxpy as cp
import mpmath as mp
import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum import InputError, Problem
from dln_momentum.theory.classification import margin_certificate, margin_minimizer
from dln_momentum.theory.max_margin import is_separable, max_margin


def classified(seed: int, n: int = 4, d: int = 7, loss: str = "logistic") -> Problem:
    return dln.sparse(n, d, 2, seed=seed).with_loss(loss)


def weights_of(beta: Any) -> list[Any]:
    """p_k, backward from the horizon."""
    p = [1 + 0 * beta[0]]
    for b in beta[:0:-1]:
        p.insert(0, 1 + b * p[0])
    return p


def written_run(
    exact: Any, exp: Any, loss: str, steps: int = 40, fault: float = 0.0
) -> tuple[Any, ...]:
    """Heavy ball on mini-batches of two rows, with rates that change, of numbers of one kind.

    The first steps are long enough that w_+- changes sign. A fault is a relative change of one
    entry of w_+ after step 20.
    """
    rng = np.random.default_rng(3)
    n, d = 3, 5
    lift = np.vectorize(exact, otypes=[object])
    X, y = lift(rng.standard_normal((n, d))), lift([1.0, -1.0, 1.0])
    w = [np.stack([lift(rng.uniform(0.2, 0.6, d)), lift(rng.uniform(-0.6, -0.2, d))])] * 2
    gamma = lift(rng.uniform(0.2, 1.0, steps))
    beta = lift(rng.uniform(0, 0.9, steps))
    gamma[:3] *= 8 if loss == "logistic" else 3
    weights = np.zeros((steps, n), dtype=object) + exact(0)
    sign = np.array([[exact(1)], [exact(-1)]], dtype=object)
    for k in range(steps):
        theta = (w[-1][0] ** 2 - w[-1][1] ** 2) / 4
        for i in rng.choice(n, 2, replace=False):
            e = exp(-y[i] * (X[i] @ theta))
            weights[k, i] = -y[i] * (e / (1 + e) if loss == "logistic" else e) / 2
        g = X.T @ weights[k]
        w.append(w[-1] - gamma[k] * sign * g * w[-1] + beta[k] * (w[-1] - w[-2]))
        if k == 20:
            w[-1][0, 0] *= 1 + fault
    return X, y, np.array(w), gamma, beta, weights


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_the_identity_in_fifty_digits(loss: str) -> None:
    log_abs: Any = np.vectorize(lambda x: mp.log(abs(x)), otypes=[object])
    asinh: Any = np.vectorize(mp.asinh, otypes=[object])
    with mp.workdps(50):
        X, y, w, gamma, beta, weights = written_run(mp.mpf, mp.exp, loss)
        p = weights_of(beta)
        assert any((a * b < 0).any() for a, b in pairwise(w))  # a sign changes
        total = 0 * w[0]
        for k in range(len(beta)):
            a, b = w[k + 1], w[k + 2]
            for weight, ratio in ((p[k], b / a), (p[k] - 1, a / b)):
                total = total + weight * (ratio - 1 - log_abs(ratio))
        start, end = log_abs(w[1]), w[-1]
        delta = np.array([mp.exp(x) for x in (start - total).sum(0)])
        c = start[0] - start[1] - total[0] + total[1]
        theta = (end[0] ** 2 - end[1] ** 2) / 4
        nu = -sum(p[k] * gamma[k] * weights[k] for k in range(len(beta)))
        # 50 digits less those of 40 steps and of a w near a zero
        assert max(map(abs, delta / abs(end[0] * end[1]) - 1)) < mp.mpf("1e-38")
        assert max(map(abs, asinh(2 * theta / delta) - c - 2 * X.T @ nu)) < mp.mpf("1e-38")
        assert min(y * nu) > 0


def end_of_run(loss: str = "logistic", *, wrong: float = 0.0) -> tuple[Problem, Any, Any, Any]:
    """The problem of the run, and theta, Delta and c at its end from one float64 step onwards."""
    X, y, w, _, beta, _ = written_run(float, np.exp, loss, fault=wrong)
    w = w.astype(float)
    p, now, after = weights_of(beta.astype(float)), w[1:-1], w[2:]
    ratio, weight = after / now, np.array(p)[:, None, None]
    sums = weight * (ratio - 1 - np.log(abs(ratio)))
    sums += (weight - 1) * (1 / ratio - 1 + np.log(abs(ratio)))
    s = torch.from_numpy(sums.sum(0))
    start, end = torch.from_numpy(w[1]), torch.from_numpy(w[-1])
    delta = (start[0] * start[1]).abs() * torch.exp(-s.sum(0))
    c = torch.log((start[0] / start[1]).abs()) - s[0] + s[1]
    theta = (end[0] - end[1]) * (end[0] + end[1]) / 4
    return Problem(X.astype(float), y.astype(float), loss=loss), theta, delta, c


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_the_end_of_a_run_is_certified_and_is_the_minimiser(loss: str) -> None:
    problem, theta, delta, c = end_of_run(loss)
    found = margin_certificate(problem, theta, delta, c)
    assert float(found.residual) < 1e-13  # sums of 40 terms of size 1
    assert float(found.sign_violation) == 0
    margin = dln.margins(problem, theta)
    best = margin_minimizer(problem, margin, delta, c)
    assert best.converged
    # the tolerance 1e-11 on margins, times the condition of three rows
    torch.testing.assert_close(best.theta, theta, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(best.nu, found.nu, rtol=1e-8, atol=1e-9)
    faulty = end_of_run(loss, wrong=1e-6)
    assert float(margin_certificate(*faulty).residual) > 1e-9  # 1e4 times what rounding does


def test_a_wrong_sign_is_found() -> None:
    problem = classified(0)
    one = torch.ones(problem.d, dtype=torch.float64)
    nu = problem.y * torch.tensor([1.0, 1.0, -0.25, 1.0])
    theta = torch.sinh(2 * problem.X.T @ nu) / 2
    found = margin_certificate(problem, theta, one, 0 * one)
    assert float(found.residual) < 1e-14
    # the cone without the wrong row is at least as far as what that row adds off the others
    assert 0.01 < float(found.sign_violation) < 0.25
    # and theta is then not the minimiser: another theta of the same margins or more is closer
    best = margin_minimizer(problem, dln.margins(problem, theta), one, 0 * one)
    assert best.converged
    assert float((dln.margins(problem, best.theta) - dln.margins(problem, theta)).min()) > -1e-9
    assert float(dln.hyperbolic_entropy(best.theta, one)) < float(
        dln.hyperbolic_entropy(theta, one)
    )


def test_dependent_rows_have_a_nu_of_the_right_signs() -> None:
    problem = dln.digits(n=10, loss="logistic")  # centred columns: the rows add up to 0
    assert problem.row_space.rank == 9
    one = torch.ones(problem.d, dtype=torch.float64)
    nu = problem.y * torch.linspace(0.01, 1, 10, dtype=torch.float64)
    theta = torch.sinh(2 * problem.X.T @ nu / problem.d) / 2
    found = margin_certificate(problem, theta, one, 0 * one)
    assert float(found.sign_violation) < 1e-13
    assert float((problem.y * found.nu).min()) >= 0
    z = problem.X.T @ nu / problem.d
    torch.testing.assert_close(problem.X.T @ found.nu, z, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("delta", "spread"), [(1.0, 1.0), (1e-3, 0.0), (1e-8, 3.0)])
def test_the_minimiser_under_margins_agrees_with_a_cone_solver(delta: float, spread: float) -> None:
    problem = classified(1, n=6, d=9)
    rng = np.random.default_rng(0)
    c, least = spread * rng.standard_normal(9), rng.uniform(-0.5, 1.5, 6)
    scale = delta * np.linspace(1, 2, 9)
    found = margin_minimizer(problem, *(torch.from_numpy(x) for x in (least, scale, c)))
    assert found.converged
    signed = (problem.y[:, None] * problem.X).numpy()
    # the conditions themselves: margins, signs and what is slack
    excess, mu = signed @ found.theta.numpy() - least, (problem.y * found.nu).numpy()
    assert excess.min() > -1e-10 * abs(least).max()
    assert mu.min() >= 0
    assert np.abs(mu * excess).max() < 1e-9 * max(mu.max(), 1)
    form = np.arcsinh(2 * found.theta.numpy() / scale) - c - 2 * signed.T @ mu
    assert np.abs(form).max() < 1e-13 * (1 + np.abs(c).max() + 40)  # ln(theta/Delta) up to 20
    if delta < 1e-6:
        return  # the conditions decide alone: the cone solver reports a loss of accuracy
    p, q = cp.Variable(9), cp.Variable(9)
    entropy = cp.sum(cp.kl_div(p, scale / 4) + cp.kl_div(q, scale / 4)) / 2
    cp.Problem(cp.Minimize(entropy - c @ (p - q) / 2), [signed @ (p - q) >= least]).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
    )
    assert p.value is not None
    assert q.value is not None
    # a gap of 1e-11 in the objective is some 1e-6 in a strongly convex argument
    np.testing.assert_allclose(found.theta.numpy(), p.value - q.value, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_max_margins_are_those_of_a_cone_solver(seed: int) -> None:
    problem = classified(seed, n=8, d=12)
    signed = (problem.y[:, None] * problem.X).numpy()
    for norm, order in (("l1", 1), ("l2", 2)):
        theta = dln.max_margin(problem, norm=norm)
        margin = dln.margins(problem, theta)
        assert margin.min() == pytest.approx(1, abs=1e-9)
        other = cp.Variable(12)
        program = cp.Problem(cp.Minimize(cp.norm(other, order)), [signed @ other >= 1])
        program.solve(solver=cp.CLARABEL)
        assert np.linalg.norm(theta, order) == pytest.approx(program.value, rel=1e-7)
        # no direction of random ones has a larger normalised margin
        best = dln.normalised_margin(problem, theta, norm=norm)
        assert best == pytest.approx(1 / np.linalg.norm(theta, order), rel=1e-9)
        random = np.random.default_rng(seed).standard_normal((200, 12))
        assert dln.normalised_margin(problem, random, norm=norm).max() < best


def test_directions_tend_to_those_of_max_margin() -> None:
    problem = classified(2, n=5, d=8)
    zero = torch.zeros(8, dtype=torch.float64)

    def apart(m: float, norm: str) -> float:
        theta = margin_minimizer(problem, zero[:5] + m, zero + 1, zero).theta.numpy()
        target = dln.max_margin(problem, norm=norm)
        return float(np.linalg.norm(theta / m - target))

    # psi = ||theta||^2/(2 Delta) (1 + O(theta^2/Delta^2))
    assert apart(1e-4, "l2") < 1e-6
    far = [apart(10.0**k, "l1") for k in (3, 10, 100)]
    # theta ln(theta)/2 is l1 up to 1/ln(4 m/Delta)
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.05


def test_what_has_no_margins_is_refused() -> None:
    squared = dln.sparse(3, 5, 1)
    for call in (
        lambda: dln.margins(squared, np.zeros(5)),
        lambda: dln.max_margin(squared),
        lambda: dln.normalised_margin(squared, np.ones(5)),
    ):
        with pytest.raises(InputError, match="loss = 'squared' has no margins"):
            call()
    with pytest.raises(InputError, match="norm = 'linf' must be one of l1, l2"):
        dln.max_margin(classified(0), norm="linf")
    X, y = torch.tensor([[1.0], [-1.0]]), torch.ones(2)
    assert not is_separable(X, y)
    for norm in ("l1", "l2"):
        with pytest.raises(InputError, match="not separable"):
            max_margin(X, y, norm)

"""The Bregman minimiser: optimality, accuracy, limits, two independent solvers, many runs."""

from __future__ import annotations

from itertools import pairwise

import cvxpy as cp
import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dln_momentum import RowSpace
from dln_momentum.row_space import vector_norm
from dln_momentum.theory.entropy import bregman_divergence, mirror_map
from dln_momentum.theory.interpolators import basis_pursuit, least_norm
from dln_momentum.theory.minimizers import Minimizer, bregman_minimizer

SHAPES = [(20, 30, 3), (40, 100, 5), (5, 8, 1)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def uniform(*shape: int, low: float, high: float, seed: int = 0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def sparse(runs: int, d: int, s: int, seed: int = 0) -> Tensor:
    order = torch.rand(runs, d, generator=generator(seed)).argsort(-1)
    return torch.where(order < s, gaussian(runs, d, seed=seed + 1), 0.0)


def scales(kind: str, runs: int, d: int) -> Tensor:
    """Delta log-uniform over [1e-30, 1e3]: one for a run, one for a coordinate, or the least."""
    shape = (runs, d) if kind == "each" else (runs, 1)
    exponents = uniform(*shape, low=-30, high=-30 if kind == "least" else 3, seed=3)
    return (10**exponents).expand(runs, d)


def assert_optimal(
    rows: RowSpace, b: Tensor, delta: Tensor, c: Tensor | float, found: Minimizer
) -> None:
    assert found.converged.all()
    slack = torch.linalg.vector_norm(rows.coordinates(found.theta) - b, dim=-1)
    size = torch.linalg.vector_norm(found.theta, dim=-1)
    # the tolerance 1e-13, plus the rounding of this second evaluation
    assert (slack <= 2e-13 * torch.maximum(torch.linalg.vector_norm(b, dim=-1), size)).all()
    # z = c + V^T nu, to the rounding of z
    z = 2 * mirror_map(found.theta, delta)
    gap = (z - c - rows.span(found.nu)).abs().amax(-1)
    assert (gap <= 1e-12 * (1 + z.abs().amax(-1) + (z - c).abs().amax(-1))).all()


@pytest.mark.parametrize(("n", "d", "s"), SHAPES)
@pytest.mark.parametrize("kind", ["one", "each", "least"])
@pytest.mark.parametrize("standardise", [False, True])
def test_exactly_sparse_targets(n: int, d: int, s: int, kind: str, standardise: bool) -> None:
    X = gaussian(n, d)
    rows = RowSpace.of((X - X.mean(0)) / X.std(0) if standardise else X)
    b, delta = rows.coordinates(sparse(60, d, s)), scales(kind, 60, d)
    found = bregman_minimizer(rows, b, delta)
    assert_optimal(rows, b, delta, 0.0, found)
    slack = torch.linalg.vector_norm(rows.coordinates(found.theta) - b, dim=-1)
    assert (slack <= 1e-12 * torch.linalg.vector_norm(b, dim=-1)).all()
    # measured: median 7 to 22, at most 35
    assert found.iterations.max() < 60


@pytest.mark.parametrize(("n", "d", "s"), SHAPES)
@pytest.mark.parametrize("kind", ["one", "each"])
@pytest.mark.parametrize("zero_target", [False, True])
def test_any_log_init(n: int, d: int, s: int, kind: str, zero_target: bool) -> None:
    rows = RowSpace.of(gaussian(n, d))
    b, delta = rows.coordinates(sparse(60, d, s)), scales(kind, 60, d)
    b = torch.zeros_like(b) if zero_target else b
    c = uniform(60, d, low=-100, high=100, seed=5)
    found = bregman_minimizer(rows, b, delta, c)
    assert_optimal(rows, b, delta, c, found)
    # measured: at most 40
    assert found.iterations.max() < 80


@pytest.mark.parametrize("decades", [33, 45])
def test_log_init_of_a_known_minimiser(decades: int) -> None:
    # Any theta is the minimiser for its own mirror image shifted along the row space.
    rows = RowSpace.of(gaussian(20, 30))
    truth = sparse(60, 30, 3) + 0.1 * rows.reject(gaussian(60, 30, seed=7))
    delta = 10 ** uniform(60, 30, low=-30, high=decades - 30, seed=3)
    c = 2 * mirror_map(truth, delta) - rows.span(20 * gaussian(60, 20, seed=8))
    found = bregman_minimizer(rows, rows.coordinates(truth), delta, c)
    assert found.converged.all()
    # c is only known to 1e-14 of its size of about 100, which moves theta by as much
    torch.testing.assert_close(found.theta, truth, rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 6),
    extra=st.integers(1, 6),
    scale=st.floats(-12, 12),
)
def test_scale_equivariance(seed: int, n: int, extra: int, scale: float) -> None:
    # V theta = b and Delta/2 sinh are homogeneous: (b, Delta) -> (k b, k Delta) scales theta.
    d, k = n + extra, 10.0**scale
    rows = RowSpace.of(gaussian(n, d, seed=seed))
    b, c = gaussian(n, seed=seed + 1), 5 * gaussian(d, seed=seed + 2)
    delta = 10 ** uniform(d, low=-20, high=2, seed=seed + 3)
    one, other = bregman_minimizer(rows, b, delta, c), bregman_minimizer(rows, k * b, k * delta, c)
    assert one.converged
    assert other.converged
    tolerance = 1e-9 * float(one.theta.abs().max())  # 1e-13 times a worst oblique projection
    torch.testing.assert_close(other.theta / k, one.theta, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("delta", "spread"), [(1.0, 0.0), (1e-3, 10.0), (1e-30, 0.0), (1e-8, 60)])
def test_theta_to_fifty_digits(delta: float, spread: float) -> None:
    rows, c = RowSpace.of(gaussian(4, 7, seed=1)), spread * uniform(7, low=-1, high=1, seed=4)
    b, scale = rows.coordinates(gaussian(7, seed=2)), delta * (1 + torch.arange(7).double())
    found = bregman_minimizer(rows, b, scale, c)
    with mp.workdps(50):
        V, target = mp.matrix(rows.basis.tolist()), mp.matrix(b.tolist())
        halves = [mp.mpf(k) / 2 for k in scale.tolist()]
        nu, theta = mp.matrix(found.nu.tolist()), mp.matrix(7, 1)
        for _ in range(8):
            z = mp.matrix(c.tolist()) + V.T * nu
            theta = mp.matrix([h * mp.sinh(x) for h, x in zip(halves, z, strict=True)])
            weights = mp.diag([h * mp.cosh(x) for h, x in zip(halves, z, strict=True)])
            nu += mp.lu_solve(V * weights * V.T, target - V * theta)
        error = mp.norm(mp.matrix(found.theta.tolist()) - theta) / mp.norm(theta)
        assert mp.norm(target - V * theta) < 1e-40
    # rounding 1e-16 times |z| of up to 130 times the condition of the active columns
    assert error < 3e-14


def test_agrees_with_an_exponential_cone_solver() -> None:
    rows, b = RowSpace.of(gaussian(5, 8)), gaussian(5, seed=1)
    delta, c = 10 ** uniform(8, low=-3, high=1, seed=2), 3 * gaussian(8, seed=3)
    # psi_Delta(p - q) is the least sum of two entropies, at p, q = Delta/4 exp(+-2z)
    p, q = cp.Variable(8), cp.Variable(8)
    scale = delta.numpy() / 4
    entropy = cp.sum(cp.kl_div(p, scale) + cp.kl_div(q, scale)) / 2
    constraints = [rows.basis.numpy() @ (p - q) == b.numpy()]
    cp.Problem(cp.Minimize(entropy - c.numpy() @ (p - q) / 2), constraints).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    theta = bregman_minimizer(rows, b, delta, c).theta.numpy()
    assert p.value is not None
    assert q.value is not None
    # an interior-point gap of 1e-12 in the objective is 1e-6 in a strongly convex argument
    np.testing.assert_allclose(theta, p.value - q.value, atol=1e-6 * np.abs(theta).max())


def test_small_balancedness_tends_to_basis_pursuit() -> None:
    X = gaussian(20, 30)
    y = sparse(6, 30, 3) @ X.mT
    rows, sparsest = RowSpace.of(X), basis_pursuit(X, y)
    errors = []
    for exponent in (4, 8, 16, 30):
        delta = torch.full((30,), 10.0**-exponent, dtype=torch.float64)
        found = bregman_minimizer(rows, rows.target(y), delta)
        gaps = torch.linalg.vector_norm(found.theta - sparsest, dim=-1)
        errors.append(gaps / torch.linalg.vector_norm(sparsest, dim=-1))
        # psi_Delta/(ln(1/Delta)/2) is the l1 norm up to 1/ln(1/Delta), and so is the excess
        excess = found.theta.abs().sum(-1) / sparsest.abs().sum(-1) - 1
        assert (excess <= 2 / (exponent * np.log(10))).all()
        assert (excess >= -1e-12).all()
    # theta itself: where the l1 solution is unique, a power of Delta that its dual slack sets
    for before, after in pairwise(errors):
        assert (after < 0.5 * before).all()
    assert errors[-1].max() < 1e-3


def test_large_balancedness_tends_to_the_weighted_least_norm() -> None:
    X, y = gaussian(20, 30), gaussian(20, seed=1)
    rows, weights = RowSpace.of(X), 10 ** uniform(30, low=-1, high=1, seed=2)
    limit, errors = least_norm(X, y, weights), []
    for scale in (1e2, 1e3, 1e4):
        theta = bregman_minimizer(rows, rows.target(y), scale * weights).theta
        errors.append(float(torch.linalg.vector_norm(theta - limit)))
    # the next term of asinh is smaller by (theta/Delta)^2: two orders a decade
    orders = -np.diff(np.log10(errors))
    np.testing.assert_allclose(orders, 2, atol=0.1)


@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_three_point_identity(scale: float) -> None:
    # D(theta, theta_0) = D(theta, theta*) + D(theta*, theta_0) for every interpolator theta
    rows, start = RowSpace.of(gaussian(20, 30)), gaussian(30, seed=1)
    delta = scale * (1 + torch.arange(30).double())
    c = 2 * mirror_map(start, delta)
    truth = gaussian(30, seed=2)
    best = bregman_minimizer(rows, rows.coordinates(truth), delta, c).theta
    others = best + rows.reject(gaussian(50, 30, seed=3))
    total = bregman_divergence(others, best, delta) + bregman_divergence(best, start, delta)
    torch.testing.assert_close(
        bregman_divergence(others, start, delta), total, rtol=1e-12, atol=1e-12
    )


@pytest.mark.slow
def test_runs_do_not_depend_on_their_neighbours() -> None:
    rows, b = RowSpace.of(gaussian(20, 30)), gaussian(256, 20, seed=1)
    delta, c = scales("each", 256, 30), uniform(256, 30, low=-20, high=20, seed=4)
    together = bregman_minimizer(rows, b, delta, c)
    assert together.converged.all()
    assert together.iterations.unique().numel() > 5
    broken_b, broken_c = b.clone(), c.clone()
    broken_b[::5], broken_c[1::5] = torch.nan, torch.inf
    broken = bregman_minimizer(rows, broken_b, delta, broken_c)
    assert not broken.converged[::5].any()
    assert not broken.converged[1::5].any()
    for i in range(2, 256, 5):
        size = together.theta[i].abs().max()
        alone = bregman_minimizer(rows, b[i], delta[i], c[i]).theta
        # products of different batch shapes round differently; no more than that
        assert (alone - together.theta[i]).abs().max() <= 1e-12 * size
        assert (broken.theta[i] - together.theta[i]).abs().max() <= 1e-12 * size


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X, b = gaussian(5, 4, 7), gaussian(5, 4, seed=1)
    whole = bregman_minimizer(RowSpace.of(X), b, torch.ones(7, dtype=torch.float64))
    monkeypatch.setattr("dln_momentum.theory.minimizers.CHUNK_ENTRIES", 2 * 4 * 7)
    parts = bregman_minimizer(RowSpace.of(X), b, torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(parts.theta, whole.theta, rtol=0, atol=1e-12)
    assert bregman_minimizer(RowSpace.of(X[0]), b[:0], b.new_ones(7)).theta.shape == (0, 7)


def test_one_problem_a_run_of_any_rank() -> None:
    full = gaussian(6, 9)
    X = torch.stack([full, full - full.mean(0), torch.outer(full[:, 0], full[0])])
    theta, delta = gaussian(2, 3, 9, seed=1), torch.tensor([[[1e-9]], [[1.0]]], dtype=torch.float64)
    rows = RowSpace.of(X)
    found = bregman_minimizer(rows, rows.coordinates(theta), delta)
    assert found.theta.shape == (2, 3, 9)
    assert found.nu.shape == (2, 3, 6)
    assert found.residual.shape == found.converged.shape == found.iterations.shape == (2, 3)
    for i in range(3):
        alone = RowSpace.of(X[i])
        expected = bregman_minimizer(alone, alone.coordinates(theta[1, i]), delta[1, 0])
        torch.testing.assert_close(found.theta[1, i], expected.theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "d", "s"), SHAPES)
def test_where_the_solver_looks_first_does_not_matter(n: int, d: int, s: int) -> None:
    runs = 12
    rows = RowSpace.of(gaussian(n, d))
    b, delta, c = rows.coordinates(sparse(runs, d, s)), scales("each", runs, d), gaussian(runs, d)
    cold = bregman_minimizer(rows, b, delta, c)
    guesses = torch.stack([cold.theta, 1.01 * cold.theta, gaussian(runs, d), 0 * cold.theta])
    guesses[3, 0] = torch.inf
    warm = bregman_minimizer(rows, b, delta, c, near=guesses)
    # both are within 1e-13 of the level set
    torch.testing.assert_close(warm.theta, cold.theta.expand(4, -1, -1), rtol=0, atol=1e-11)
    assert_optimal(rows, b.expand(4, -1, -1), delta.expand(4, -1, -1), c, warm)
    # at the answer itself: one step beyond the tolerance, and one to see it
    assert (warm.iterations[0] <= 2).all()


def test_nothing_to_fit_is_zero() -> None:
    rows = RowSpace.of(gaussian(3, 5))
    found = bregman_minimizer(rows, torch.zeros(3).double(), torch.ones(5).double())
    assert found.converged
    assert found.residual == 0
    assert not found.theta.any()


def test_too_few_iterations_is_a_status() -> None:
    rows = RowSpace.of(gaussian(20, 30))
    delta = torch.full((30,), 1e-30, dtype=torch.float64)
    found = bregman_minimizer(rows, gaussian(20, seed=1), delta, max_iterations=2)
    assert not found.converged
    assert found.iterations == 2
    assert found.theta.isfinite().all()


def test_refusals() -> None:
    rows, b, ones = RowSpace.of(gaussian(3, 5)), gaussian(3), torch.ones(5, dtype=torch.float64)
    for bad in (0.0, -1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="balancedness"):
            bregman_minimizer(rows, b, torch.where(ones.cumsum(0) == 3, bad, ones))
    with pytest.raises(ValueError, match=r"target of shape \(5,\)"):
        bregman_minimizer(rows, ones, ones)
    with pytest.raises(ValueError, match=r"balancedness of shape \(3,\)"):
        bregman_minimizer(rows, b, b.abs())
    with pytest.raises(ValueError, match=r"log_init of shape \(2,\)"):
        bregman_minimizer(rows, b, ones, ones[:2])
    with pytest.raises(ValueError, match="broadcast"):
        bregman_minimizer(rows, b.expand(4, 3), ones.expand(3, 5))
    with pytest.raises(ValueError, match="tol"):
        bregman_minimizer(rows, b, ones, tol=0.0)
    with pytest.raises(ValueError, match="max_iterations"):
        bregman_minimizer(rows, b, ones, max_iterations=0)


@pytest.mark.parametrize("delta", [1e-200, 1e-100, 1e100, 1e200])
def test_the_largest_and_smallest_balancedness(delta: float) -> None:
    X, truth = gaussian(20, 30), sparse(1, 30, 3)[0]
    rows, scale = RowSpace.of(X), torch.full((30,), delta, dtype=torch.float64)
    found = bregman_minimizer(rows, rows.coordinates(truth), scale)
    assert found.converged
    # so far out the limits are reached to the last digit but those of the two solvers
    limit = (least_norm if delta > 1 else basis_pursuit)(X, X @ truth)
    torch.testing.assert_close(found.theta, limit, rtol=0, atol=1e-12)
    c = uniform(30, low=-100, high=100, seed=5)
    assert bregman_minimizer(rows, rows.coordinates(truth), scale, c).converged


def test_balancedness_far_above_one_over_fifty_decades() -> None:
    """The case of a report: the weighted least norm to all digits, which five equations give."""
    X = torch.tensor([[1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, 2.0], dtype=torch.float64)
    delta = torch.tensor([1e200, 1e150, 1e170, 1e160], dtype=torch.float64)
    rows = RowSpace.of(X)
    found = bregman_minimizer(rows, rows.target(y), delta)
    assert found.converged
    with mp.workdps(400):
        A, W = mp.matrix(X.tolist()), mp.diag([mp.mpf(x) for x in delta.tolist()])
        exact = W * A.T * mp.lu_solve(A * W * A.T, mp.matrix(y.tolist()))
        limit = torch.tensor([float(x) for x in exact], dtype=torch.float64)
    # theta/Delta <= 1e-150: the next term of asinh is beyond every digit. Each coordinate keeps
    # its own decade: a backward error of a few ulp, times the condition of X
    torch.testing.assert_close(found.theta, limit, rtol=1e-13, atol=0)
    torch.testing.assert_close(least_norm(X, y, delta), limit, rtol=1e-13, atol=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 5),
    extra=st.integers(1, 6),
    low=st.floats(-300, 250),
    decades=st.floats(0, 50),
    spread=st.sampled_from([0.0, 3.0, 50.0]),
)
def test_any_balancedness_that_float64_has(
    seed: int, n: int, extra: int, low: float, decades: float, spread: float
) -> None:
    d = n + extra
    rows, b = RowSpace.of(gaussian(n, d, seed=seed)), gaussian(n, seed=seed + 1)
    delta = 10 ** uniform(d, low=low, high=low + decades, seed=seed + 2)
    c = spread * uniform(d, low=-1, high=1, seed=seed + 3)
    found = bregman_minimizer(rows, b, delta, c)
    assert found.converged, found.residual
    slack = rows.coordinates(found.theta) - b
    scale = torch.maximum(vector_norm(found.theta), vector_norm(b))
    # the tolerance 1e-13, plus the rounding of this second evaluation
    assert vector_norm(slack) <= 2e-13 * scale
    # KKT: z - c in the row space, to the rounding of its terms, wherever theta has its digits
    z = 2 * mirror_map(found.theta, delta)
    seen = found.theta.abs() > 1e-290
    assert seen.any()
    gap = (z - c - rows.span(found.nu))[seen]
    assert vector_norm(gap) <= 1e-12 * (vector_norm(z) + vector_norm(delta.new_full((d,), spread)))


@pytest.mark.parametrize("decades", [100, 400])
def test_balancedness_over_hundreds_of_decades(decades: int) -> None:
    rows, b = RowSpace.of(gaussian(4, 9)), gaussian(60, 4, seed=1)
    delta = 10 ** uniform(60, 9, low=-decades / 2, high=decades / 2, seed=2)
    found = bregman_minimizer(rows, b, delta)
    assert_optimal(rows, b, delta, 0.0, found)

"""Networks of depth D > 2: the identity in 50 digits, the potential, its minimiser, its limit."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor

from dln_momentum import InputError, Problem, RowSpace, Start, power, sparse, train
from dln_momentum.theory import depth as deep
from dln_momentum.theory.entropy import bregman_divergence, hyperbolic_entropy
from dln_momentum.theory.minimizers import bregman_minimizer
from dln_momentum.theory.power_minimizer import power_minimizer
from dln_momentum.theory.power_trajectory import PowerTrajectory

DEPTHS = [2.5, 3.0, 4.0]
EPS = torch.finfo(torch.float64).eps


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_run(
    exact: Any, D: float, steps: int = 40, seed: int = 0, *, speed: bool = True
) -> tuple[Any, Any, Any, Any, Any]:
    """X, and u, v at steps 0 to K+1, beta and gamma, of heavy ball on mini-batches of two rows."""
    rng = np.random.default_rng(seed)
    n, d = 3, 5
    lift = np.vectorize(exact, otypes=[object])
    X, theta_star = lift(rng.standard_normal((n, d))), lift([1.0, -1.0, 0, 0, 0])
    y, D = X @ theta_star, exact(D)
    u = [lift(rng.uniform(0.4, 0.8, d)), lift(rng.uniform(0.4, 0.8, d))]
    v = [lift(rng.uniform(0.4, 0.8, d)), lift(rng.uniform(0.4, 0.8, d))]
    # rest, or a speed that keeps the layers positive
    u[0], v[0] = ((w[1] + (w[0] - w[1]) / 10 if speed else w[1]) for w in (u, v))
    gamma, beta = lift(rng.uniform(0.004, 0.02, steps)), lift(rng.uniform(0, 0.95, steps))
    for k in range(steps):
        rows = rng.choice(n, 2, replace=False)
        theta = u[-1] ** D - v[-1] ** D
        g = X[rows].T @ (X[rows] @ theta - y[rows]) / 2
        u.append(u[-1] - gamma[k] * D * g * u[-1] ** (D - 1) + beta[k] * (u[-1] - u[-2]))
        v.append(v[-1] + gamma[k] * D * g * v[-1] ** (D - 1) + beta[k] * (v[-1] - v[-2]))
    return X, np.array(u), np.array(v), gamma, beta


def weights_of(beta: Any) -> list[Any]:
    """p_k, backward from the horizon."""
    p = [1 + 0 * beta[0]]
    for b in beta[:0:-1]:
        p.insert(0, 1 + b * p[0])
    return p


@pytest.mark.parametrize("D", DEPTHS)
def test_the_identity_in_fifty_digits(D: float) -> None:
    with mp.workdps(50):
        X, u, v, _, beta = written_run(mp.mpf, D)
        exact_D = mp.mpf(D)
        m, p = exact_D - 2, weights_of(beta)
        assert min(min(u.flat), min(v.flat)) > 0
        assert sum((w[-1] ** exact_D - w[1] ** exact_D)[0] ** 2 for w in (u, v)) > 0.001  # it moved

        def summed(w: Any) -> Any:
            phi, slope = (lambda x: -(x**-m) / m), (lambda x: x ** (1 - exact_D))

            def divergence(a: Any, b: Any) -> Any:
                return (b - a) * slope(a) - (phi(b) - phi(a))

            total = -p[0] * beta[0] * (w[1] - w[0]) * slope(w[1])
            for k in range(len(beta)):
                a, b = w[k + 1], w[k + 2]
                total = total + p[k] * divergence(a, b) + (p[k] - 1) * divergence(b, a)
            return total

        plus, minus = (w[1] ** -m + m * summed(w) for w in (u, v))
        A, c = (plus + minus) / 2, (plus - minus) / 2
        assert max(abs(x) for x in u[-1] ** -m + v[-1] ** -m - 2 * A) < mp.mpf("1e-45")
        theta = u[-1] ** exact_D - v[-1] ** exact_D
        # h_A^{-1}(theta), by solving h_A(z) = theta
        z = []
        for t, a in zip(theta, A, strict=True):
            h = lambda x, a=a: (a + x) ** (-exact_D / m) - (a - x) ** (-exact_D / m)  # noqa: E731
            guess = deep.power_mirror(
                torch.tensor([float(t)]).double(), torch.tensor([float(a)]).double(), D
            )
            z.append(mp.findroot(lambda x, h=h, t=t: h(x) - t, mp.mpf(float(guess))))
        inside = np.array(z, dtype=object) - c
        nu = mp.lu_solve(mp.matrix((X @ X.T).tolist()), mp.matrix((X @ inside).tolist()))
        outside = inside - X.T @ np.array(list(nu), dtype=object)
        assert max(map(abs, inside)) > 0.01
        # 50 digits, less those of 40 steps and of inverse powers of layers of 0.1 and more
        assert max(map(abs, outside)) < mp.mpf("1e-38")


@pytest.mark.parametrize("D", DEPTHS)
def test_the_trajectory_of_a_run_is_certified_and_a_fault_is_not(D: float) -> None:
    X, u, v, _, beta = written_run(float, D)
    layers = torch.from_numpy(np.array([u, v]).astype(float))
    p, problem = weights_of(beta.astype(float)), _problem(X.astype(float))
    m = D - 2

    def certified(w: Tensor) -> tuple[float, float]:
        now, after = w[:, 1:-1], w[:, 2:]
        weight = torch.tensor(p)[:, None].expand(-1, w.shape[-1])
        sums = deep.path_sum_increment(now, after, weight, D).sum(1)
        start = p[0] * float(beta[0]) * (w[:, 1] - w[:, 0]) * w[:, 1] ** (1 - D)
        path = PowerTrajectory()
        path.depth, path.w, path.w_start, path.exponents = D, w[:, -1], w[:, 1], sums - start
        error = (path.predicted_scale / path.scale - 1).abs().max()
        assert bool(path.is_valid)
        balance = (path.predicted_balancedness / path.balancedness - 1).abs().max()
        # Delta = 4 A^(-2/m) has 2/m times the relative error of A
        assert float(balance) <= 2.1 / m * float(error) + 4 * EPS
        return float(error), float(path.certificate(problem))

    error, residual = certified(layers)
    assert error < 1e-13  # 40 sums of rounding 1e-16
    assert residual < 1e-12  # the same over |z| of 0.1 and more
    wrong = layers.clone()
    wrong[0, 20] *= 1 + 1e-6  # one iterate of u that is not the method's
    assert certified(wrong)[1] > 1e-9  # 1e3 times what rounding may do


def _problem(X: np.ndarray) -> Problem:
    return Problem(X, X @ np.array([1.0, -1.0, 0, 0, 0]))


@pytest.mark.parametrize("D", [2.01, 2.5, 3.0, 10.0])
def test_maps_and_divergence_against_the_definition_in_many_digits(D: float) -> None:
    sizes = torch.tensor([-1e3, -1.0, -1e-9, 1e-30, 0.3, 1e8], dtype=torch.float64)
    layer = torch.tensor([1e-3, 1.0, 30.0], dtype=torch.float64)[:, None].expand(3, 6)
    A, theta = layer ** (2 - D), sizes * layer**D  # theta/A^(-D/m) from 1e-30 to 1e8
    z, other = deep.power_mirror(theta, A, D), 0.9 * theta
    found = [
        deep.power_divergence(a[..., None], b[..., None], A[..., None], D)
        for a, b in ((theta, other), (theta, 0 * theta))
    ]
    # the definition of a divergence of 1e-60 cancels 60 digits
    with mp.workdps(120):
        m = mp.mpf(D) - 2
        q = mp.mpf(D) / m

        def layers(t: Any, a: Any, guess: Any) -> tuple[Any, Any, Any]:
            """u, v and z of theta."""
            r = mp.findroot(
                lambda r: mp.asinh(mp.cosh(r) ** q * mp.sinh(q * r)) - mp.asinh(t * a**q / 2),
                mp.mpf(guess),
            )
            return (a * (1 - mp.tanh(r))) ** (-1 / m), (a * (1 + mp.tanh(r))) ** (-1 / m), r

        for i in range(3):
            for j in range(6):
                t, a, b = (mp.mpf(float(x[i, j])) for x in (theta, A, other))
                guess = [float(deep.mirror_coordinate(x[i, j], A[i, j], D)) for x in (theta, other)]
                (u, v, r), (U, V, s) = layers(t, a, guess[0]), layers(b, a, guess[1])
                # theta A^p loses p ulps of A
                tolerance = mp.mpf(8 * EPS * (1 + D / (D - 2)))
                assert abs(z[i, j].item() + a * mp.tanh(r)) <= tolerance * abs(a * mp.tanh(r))
                by_definition = (
                    t * a * (mp.tanh(r) - mp.tanh(s)) / m - (u**2 + v**2 - U**2 - V**2) / 2
                )
                # the two are 10 % apart, which costs a factor 10 in their difference, squared
                assert abs(found[0][i, j].item() - by_definition) <= 100 * tolerance * by_definition
                whole = t * a * mp.tanh(r) / m - (u**2 + v**2) / 2 + a ** (-2 / m)
                assert abs(found[1][i, j].item() - whole) <= 10 * tolerance * whole


@pytest.mark.parametrize("D", [2.5, 3.0, 6.0])
def test_the_mirror_map_inverts_the_predictor_and_is_the_gradient(D: float) -> None:
    A = 1 + gaussian(4, 7, seed=0).abs()
    z = A * (2 * torch.rand(4, 7, generator=torch.Generator().manual_seed(1)).double() - 1)
    theta = deep.power_predictor(z, A, D)
    # h_A amplifies by p A/(A - |z|), which is about 100 here
    torch.testing.assert_close(deep.power_mirror(theta, A, D), z, rtol=1e-12, atol=1e-14)
    h = 1e-5 * theta.abs()
    up, down = (deep.power_potential((theta + s * h)[..., None], A[..., None], D) for s in (1, -1))
    # a central difference: h^2 of curvature, and the rounding 1e-16/h of the potential
    torch.testing.assert_close((up - down) / (2 * h), -z / (D - 2), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("D", [2.5, 3.0, 4.0])
@pytest.mark.parametrize("alpha", [1e-4, 0.3, 10.0])
def test_the_minimiser_is_optimal_and_feasible(D: float, alpha: float) -> None:
    rows = RowSpace.of(gaussian(6, 10, seed=0))
    theta_star = torch.zeros(10, dtype=torch.float64)
    theta_star[:2] = torch.tensor([1.0, -2.0])
    b = rows.coordinates(theta_star)
    A = (alpha * torch.exp(gaussian(20, 10, seed=1) / 4)) ** (2 - D)
    c = A * torch.tanh(gaussian(20, 10, seed=2))
    found = power_minimizer(rows, b, A, c, depth=D)
    assert found.converged.all()
    assert float(found.residual.max()) <= 1e-13
    # one projection of z, |z| <= A of at most 1e8 to relative rounding
    assert float(deep.power_kkt_residual(rows, found.theta, A, c, D).max()) < 1e-13
    z = c + rows.span(found.nu)
    assert bool((z.abs() <= A).all())
    # no other interpolator has a smaller divergence
    size = found.theta.norm(dim=-1, keepdim=True)
    other = found.theta + 0.1 * size * rows.reject(gaussian(20, 10, seed=3))
    start = deep.power_predictor(c, A, D)
    least, more = (deep.power_divergence(t, start, A, D) for t in (found.theta, other))
    assert bool((more > least).all())


@pytest.mark.parametrize("D", [3.0, 4.0])
def test_agrees_with_a_cone_solver_on_the_dual(D: float) -> None:
    rows, b = RowSpace.of(gaussian(4, 7, seed=1)), gaussian(4, seed=2)
    A = 1 + gaussian(7, seed=3).abs()
    c = A * torch.tanh(gaussian(7, seed=4)) / 2
    m = D - 2
    nu = cp.Variable(4)
    z = c.numpy() + rows.basis.numpy().T @ nu
    barrier = cp.sum(cp.power(A.numpy() - z, -2 / m) + cp.power(A.numpy() + z, -2 / m))
    cp.Problem(cp.Minimize(m / 2 * barrier + nu @ b.numpy())).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    found = power_minimizer(rows, b, A, c, depth=D)
    assert nu.value is not None
    # an interior-point gap of 1e-12 in the objective is 1e-6 in a strongly convex argument
    np.testing.assert_allclose(found.nu.numpy(), nu.value, atol=1e-6)


def test_depth_two_is_the_limit() -> None:
    rows, b = RowSpace.of(gaussian(4, 7, seed=1)), gaussian(4, seed=2)
    delta = torch.exp(gaussian(7, seed=3))
    c = gaussian(7, seed=4)
    theta, other = gaussian(2, 5, 7, seed=5)
    limit = bregman_minimizer(rows, b, delta, c).theta
    distances = []
    for m in (1e-2, 1e-3, 1e-4):
        A = (delta / 4) ** (-m / 2)
        # -z/m -> arcsinh(2 theta/Delta)/2
        found = power_minimizer(rows, b, A, -m / 2 * c, depth=2 + m).theta
        potential = deep.power_potential(theta, A, 2 + m)
        divergence = deep.power_divergence(theta, other, A, 2 + m)
        distances.append(
            [
                float((found - limit).norm() / limit.norm()),
                float((potential / hyperbolic_entropy(theta, delta) - 1).abs().max()),
                float((divergence / bregman_divergence(theta, other, delta) - 1).abs().max()),
            ]
        )
    first, second, third = np.array(distances)
    # linear in m, and 10 times the largest |ln(Delta)| and |c| of 2
    assert bool((np.array([first, second, third]) < 20 * np.array([[1e-2], [1e-3], [1e-4]])).all())
    np.testing.assert_allclose(first / second, 10, rtol=0.2)
    np.testing.assert_allclose(second / third, 10, rtol=0.05)


def test_path_sums_tend_to_those_of_depth_two() -> None:
    a, b = gaussian(2, 9, seed=0).abs()
    ratio = b / a
    expected = ratio - 1 - ratio.log()
    found = deep.layer_divergence(a, b, 2 + 1e-7)
    # m = 1e-7, times logarithms of at most 5
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-14)


def test_starts_of_a_depth() -> None:
    start = power(alpha=[0.1, 0.2], depth=[[2.5], [3.0], [4.0]])
    u, v = start.weights(d=6)
    assert u.shape == v.shape == (3, 2, 6)
    assert torch.equal(u, v)
    assert start.is_deep
    assert start.runs == (3, 2)
    np.testing.assert_array_equal(np.asarray(start.depth)[:, 0], [2.5, 3.0, 4.0])
    assert not Start(0.1, 0.2).is_deep
    for wrong, match in (
        (lambda: power(0.1, depth=2), "must be > 2"),
        (lambda: power(-0.1), "alpha = -0.1 must be finite and > 0"),
        (lambda: power(0.1, depth=1.5), "depth = 1.5 must be 2 in all runs"),
        (lambda: Start(0.1, -0.2, depth=3), "v has 1 entries that are not finite and > 0"),
        (lambda: Start([0.1], [0.1]), "condition"),
        (lambda: deep.power_mirror(torch.ones(1), torch.ones(1), 2.0), "finite and > 2"),
    ):
        with pytest.raises(InputError, match=match):
            wrong()


def test_bad_scales_are_refused() -> None:
    rows = sparse(3, 5, 1).row_space
    b, one = torch.ones(3).double(), torch.ones(5).double()
    for scale, c, match in ((0 * one, one, "A must be"), (one, one, r"\|c\| must be below A")):
        with pytest.raises(InputError, match=match):
            power_minimizer(rows, b, scale, c, depth=3.0)
    with pytest.raises(InputError, match="tol"):
        power_minimizer(rows, b, one, 0 * one, depth=3.0, tol=0)


def test_a_run_that_rounding_holds_at_its_start_has_no_certificate() -> None:
    """Increments below the last digit of u are lost; from a larger start the residual is known."""
    problem = sparse(5, 8, 1, seed=0)
    still, moved = (
        train(problem, power(alpha, 4.7), gamma=0.05, beta=0.9, max_steps=500)
        for alpha in (2e-6, 0.3)
    )
    # it has moved by about 3e-13 of its layers, where 500 roundings may take 5e-14
    assert 0 < (still.snapshot.w / still.snapshot.w_start - 1).abs().max() < 5000 * EPS
    assert np.isnan(still.certify().kkt_residual)
    # 500 additions, each rounded, on a path that is as long as the layers
    assert moved.certify().kkt_residual < 500 * EPS

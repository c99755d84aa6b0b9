"""The mathematics that the experiments on limits, the plane and published settings rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dln_momentum import momentum_flow, sparse
from dln_momentum.problem import stack
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.interpolators import basis_pursuit
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments import initialisation_scale, plane, published_runs
from experiments.claim import configured
from experiments.limits import follow_flows, limits


@pytest.fixture(scope="module")
def problems():
    return [sparse(8, 12, 2, seed=seed, signal="signs") for seed in range(3)]


def follow(problems, lam, *, resolution=0.5, tol=1e-7):
    alpha = torch.full((len(problems),), 0.1, dtype=torch.float64)
    return follow_flows(
        problems,
        torch.full_like(alpha, lam),
        alpha,
        resolution=resolution,
        max_steps=200_000,
        tol=tol,
    )


@pytest.mark.parametrize("lam", [0.0, 0.3, 3.0])
def test_a_limit_is_known_long_before_the_iterate_reaches_it(problems, lam) -> None:
    early, late = follow(problems, lam, tol=1e-6), follow(problems, lam, tol=1e-26)
    predicted = limits(early, stack(problems))
    # what the path sums miss is of the order of the loss, what theta_K misses of its root
    assert (predicted - late.theta).abs().max() < 1e-5
    assert (early.theta - late.theta).abs().max() > 1e-5


def test_a_run_that_has_not_converged_has_no_limit(problems) -> None:
    end = follow(problems, 0.3, tol=1e-300)
    assert limits(end, stack(problems)).isnan().all()


@pytest.mark.slow
def test_mgd_with_lambda_ks_follows_the_flow_to_second_order(problems) -> None:
    # a lambda at which no w_+- vanishes: beyond, the order is not clean
    lam, w = 0.1, torch.full((12,), math.sqrt(2) * 0.1, dtype=torch.float64)
    paths = [momentum_flow(p, w, w, lam, math.inf, tol=1e-11) for p in problems]
    exact = torch.stack([limit_bias(path).balancedness for path in paths])
    ends = [follow(problems, lam, resolution=r, tol=1e-11) for r in (0.4, 0.2, 0.1)]
    gaps = np.array([float((end.limit_balancedness - exact).abs().max()) for end in ends])
    orders = np.log2(gaps[:-1] / gaps[1:])
    # two, up to terms of fourth order that the coarsest step still feels
    assert np.allclose(orders, 2, atol=0.25)


def test_adjusted_r_squared_of_a_function_of_the_index_and_of_noise() -> None:
    x = np.linspace(0, 5, 2000)
    noise = np.random.default_rng(0).standard_normal(2000)
    explained, left = plane._fit(x, np.stack([np.sin(x), noise], -1), knots=48)
    # linear pieces of length 0.1 miss a sine by (0.1)^2/8 at most
    assert explained[0] > 1 - 1e-5
    assert np.abs(left[:, 0]).max() < 2e-3
    # the adjustment takes away what 48 knots would explain by chance; 4 standard deviations
    assert abs(explained[1]) < 4 * math.sqrt(2 * 48) / 2000


def test_the_exponent_of_the_l1_limit_is_that_of_the_dual_certificate() -> None:
    problem = stack([sparse(20, 30, 3, seed=seed) for seed in range(6)])
    alphas = np.array([1e-7, 1e-8])
    delta = torch.from_numpy(2 * alphas**2)[:, None, None].expand(-1, 6, 30)
    found = bregman_minimizer(problem.row_space, problem.row_space.target(problem.y), delta)
    l1 = basis_pursuit(problem.X, problem.y)
    gap = torch.linalg.vector_norm(found.theta - l1, dim=-1).log()
    measured = (gap[0] - gap[1]) / np.log(10)
    # the next coordinates off the support weigh exp(-gap ln(1/Delta)): they still show a little
    predicted = initialisation_scale.l1_exponent(problem, l1)
    assert torch.allclose(measured, predicted, rtol=0, atol=0.02)


def test_q_sums_at_beta_zero() -> None:
    config = configured("published_settings", "scale=tiny", "identity_steps=50")
    found = published_runs.q_sums(config)
    # 50 rounded terms of order 1 at most
    assert float(found["q_sum_error"].max()) < 1e-12
    assert float(found["q_sum_to_path_sums"].max()) < 1e-12
    assert float(found["largest_q_sum"].min()) > 1e-4

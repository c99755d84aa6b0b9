"""The jump process of tiny starts: its rates, Pesme and Flammarion's algorithm, where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dln_momentum import sparse
from dln_momentum.theory.interpolators import basis_pursuit
from experiments import saddles
from experiments.claim import configured
from experiments.saddle_process import SaddleProcess, momentum_rate, saddle_process


def process(seed: int, gamma: float = 0.0, beta: float = 0.0) -> tuple:
    problem = sparse(8, 14, 3, seed=seed)
    rate = momentum_rate(gamma, beta) if gamma else lambda h: h
    return problem, saddle_process(problem.X.numpy(), problem.y.numpy(), rate)


@pytest.mark.parametrize(("gamma", "beta"), [(0.1, 0.0), (0.05, 0.6), (0.02, 0.95)])
@pytest.mark.parametrize("h", [-3.0, -0.2, 0.0, 0.5, 2.0])
def test_the_rate_is_that_of_the_recursion(gamma: float, beta: float, h: float) -> None:
    steps, w = 4000, np.array([1.0, 1.0])
    size = []
    for _ in range(steps):
        w = np.array([(1 + beta + gamma * h) * w[0] - beta * w[1], w[0]])
        # the norm of both oscillates, where the roots are complex, by a bounded factor
        size.append(np.log(np.linalg.norm(w)))
        w = w / np.linalg.norm(w)
    measured = np.sum(size) / steps * (1 - beta) / gamma
    # a bounded factor, of order 1/(1 - beta), over as many steps
    tolerance = np.log(40) / steps * (1 - beta) / gamma
    assert measured == pytest.approx(float(momentum_rate(gamma, beta)(np.array(h))), abs=tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_without_momentum_the_exponents_keep_their_sum_and_the_end_has_least_l1_norm(seed) -> None:
    problem, found = process(seed)
    assert len(found.start) > 3
    # a_+ + a_- = -2: Delta is conserved by gradient flow
    assert np.allclose(found.exponents.sum(1), -2, atol=1e-12)
    assert np.allclose(found.weights, 1, atol=1e-12)
    least = basis_pursuit(problem.X, problem.y).numpy()
    # both are solved to rounding of a vertex
    assert np.allclose(found.theta[-1], least, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("gamma", "beta"), [(0.02, 0.8), (0.02, 0.97)])
def test_with_momentum_the_end_has_the_least_weighted_l1_norm(seed, gamma, beta) -> None:
    """(docs/theory.md#weighted-l1.)"""
    problem, found = process(seed, gamma, beta)
    weights = found.weights
    assert np.abs(weights - 1).max() > 0.1
    expected = saddles.least_weighted(problem, weights)
    assert np.allclose(found.theta[-1], expected, atol=1e-7)  # the tolerance of HiGHS
    # the dual certificate: -int g is at an end of its interval where theta is not 0
    dual = -np.diff(found.start) @ found.gradient[:-1]
    assert (dual <= weights[0] + 1e-9).all()
    assert (dual >= -weights[1] - 1e-9).all()
    positive, negative = found.theta[-1] > 1e-9, found.theta[-1] < -1e-9
    assert np.allclose(dual[positive], weights[0][positive], atol=1e-9)
    assert np.allclose(dual[negative], -weights[1][negative], atol=1e-9)


def test_each_saddle_is_the_minimiser_over_the_coordinates_that_have_arrived() -> None:
    """(docs/theory.md#saddle-process.)"""
    _, found = process(1, 0.02, 0.9)
    for theta, g, exponents in zip(found.theta, found.gradient, found.exponents, strict=True):
        plus, minus = exponents == 0
        assert (theta[~plus] <= 1e-12).all()
        assert (theta[~minus] >= -1e-12).all()
        # stationary where it is free, and pushed back where it stays at 0
        assert np.allclose(g[np.abs(theta) > 1e-12], 0, atol=1e-12)
        assert (g[plus] >= -1e-10).all()
        assert (g[minus] <= 1e-10).all()


def test_a_process_that_does_not_end_is_refused() -> None:
    problem = sparse(8, 14, 3, seed=0)
    with pytest.raises(RuntimeError, match="2 saddles were not enough"):
        saddle_process(problem.X.numpy(), problem.y.numpy(), lambda h: h, most=2)


def steps() -> SaddleProcess:
    """0 until 1, then 1 until 3, then 2, in one coordinate."""
    theta = np.array([[0.0], [1.0], [2.0]])
    nothing = np.zeros((3, 2, 1))
    return SaddleProcess(np.array([0.0, 1.0, 3.0]), theta, theta, nothing, nothing)


def test_plateaus_are_judged_half_way_and_only_where_they_last() -> None:
    tau = np.linspace(0.1, 4, 40)
    theta = steps().at(tau)[0]
    assert saddles.plateaus_seen(steps(), tau, theta, 0.5, 0.01) == [True, True, True]
    assert saddles.plateaus_seen(steps(), tau, theta, 1.5, 0.01) == [True]
    # a run that is late by 0.7 has left the middle of the first plateau only by its end
    late = steps().at(tau - 0.7 * (tau > 1.2))[0]
    assert saddles.plateaus_seen(steps(), tau, late, 0.5, 0.01) == [True, True, False]


def test_an_error_that_falls_like_1_over_ln_has_order_one_and_a_constant_one_none() -> None:
    config = configured("saddles")
    alphas = np.array([1e-5, 1e-20, 1e-60])
    for power, order, holds in ((1.0, 1.0, True), (0.0, 0.0, False)):
        error = 0.2 * (-np.log(alphas)) ** -power
        values = np.stack([error, error])[:, None, None, :, None] * np.ones(3)
        results = xr.Dataset(
            {
                "exponent_error": (
                    ("predictor", "setting", "lam", "alpha", "data_seed"),
                    values,
                ),
                "plateaus": (("setting", "lam", "alpha", "data_seed"), np.full((1, 1, 3, 3), 2.0)),
                "plateaus_seen": (
                    ("setting", "lam", "alpha", "data_seed"),
                    np.full((1, 1, 3, 3), 2.0),
                ),
            },
            coords={"alpha": alphas, "predictor": list(saddles.PREDICTORS)},
        )
        assert np.allclose(saddles.orders(results), order, atol=1e-12)
        found = saddles.cells(results, config)
        assert bool(found["order"].squeeze()) is holds
        assert bool(found["saddles"].squeeze())
        missed = results.assign(plateaus_seen=results["plateaus_seen"] - 1)
        assert not bool(saddles.cells(missed, config)["saddles"].squeeze())

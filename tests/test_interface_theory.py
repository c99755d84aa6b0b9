"""Potentials, minimisers and interpolators of a problem: kinds, shapes, errors, and agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum.problem import stack

PROBLEM = dln.sparse(n=5, d=8, s=2, seed=0)
THETA = np.linspace(-1.0, 1.0, 8)

VECTORS = {
    "list": THETA.tolist(),
    "numpy": THETA,
    "single": THETA.astype(np.float32),
    "torch": torch.from_numpy(THETA),
    "torch single": torch.from_numpy(THETA).float(),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_what_is_given_is_what_comes_back(kind: str) -> None:
    given: Any = VECTORS[kind]
    expected = torch.Tensor if kind.startswith("torch") else np.ndarray
    exact = np.asarray(given, dtype=np.float64)
    image = dln.mirror_map(given, 0.02)
    assert isinstance(image, expected)
    assert image.dtype in (torch.float64, np.float64)
    # two arcsinh, of which NumPy's is off by up to 4 ulps on some processors
    np.testing.assert_allclose(image, np.arcsinh(100 * exact) / 2, rtol=1e-15)
    scalar = dln.hyperbolic_entropy(given, [0.02])
    assert isinstance(scalar, torch.Tensor if kind.startswith("torch") else float)
    # the definition loses some ten digits of a sum of size 10 to cancellation
    direct = 2 * exact * np.arcsinh(100 * exact) - np.sqrt(4 * exact**2 + 0.02**2) + 0.02
    assert float(scalar) == pytest.approx(direct.sum() / 4, rel=1e-13)
    assert float(dln.bregman_divergence(given, given, 0.02)) == 0.0
    # arcsinh and sinh of images up to 2.7: a few roundings, multiplied by the slope
    np.testing.assert_allclose(dln.inverse_mirror_map(image, 0.02), exact, rtol=1e-14, atol=1e-16)


def test_arrays_of_shape_s_give_s_and_d() -> None:
    delta = np.geomspace(1e-6, 1e2, 6).reshape(2, 3)
    many = dln.bregman_minimizer(PROBLEM, delta[..., None])
    assert many.shape == (2, 3, 8)
    for place, value in np.ndenumerate(delta):
        # both residuals are within 1e-13, and the rows have condition numbers below 100
        np.testing.assert_allclose(
            many[place], dln.bregman_minimizer(PROBLEM, value), rtol=1e-10, atol=1e-11
        )
    assert dln.hyperbolic_entropy(THETA, delta[..., None]).shape == (2, 3)
    assert dln.least_norm(PROBLEM, np.ones((3, 1))).shape == (3, 8)
    assert dln.gradient_flow_limit(PROBLEM, dln.uniform(delta)).shape == (2, 3, 8)
    together = stack([dln.sparse(n=5, d=8, s=2, seed=seed) for seed in range(3)])
    assert dln.bregman_minimizer(together, 0.02).shape == (3, 8)
    assert dln.basis_pursuit(together).shape == dln.least_norm(together).shape == (3, 8)


def test_the_minimiser_of_a_run_is_its_certificate() -> None:
    run = dln.train(PROBLEM, dln.uniform(0.1), gamma=0.02, beta=0.9)
    found = run.certify()
    minimum = dln.bregman_minimizer(PROBLEM, found.balancedness, found.log_init)
    # one solver with and without a first guess: residual 1e-13, condition numbers below 100
    np.testing.assert_allclose(minimum, found.minimizer, rtol=1e-10, atol=1e-11)
    residual = dln.kkt_residual(PROBLEM, run.theta, found.balancedness, found.log_init)
    assert residual == found.kkt_residual
    assert dln.kkt_residual(PROBLEM, dln.basis_pursuit(PROBLEM), found.balancedness) > 1e-3


def test_gradient_flow_ends_at_its_limit() -> None:
    start = dln.biased(scale=0.3, phi=0.5)
    path = dln.flow(PROBLEM, start, lam=0.0, tol=1e-26)
    # the integrator keeps nine digits
    np.testing.assert_allclose(
        path.theta[-1], dln.gradient_flow_limit(PROBLEM, start), rtol=1e-7, atol=1e-8
    )


def test_the_ends_of_the_potential_are_the_two_interpolators() -> None:
    sparse, dense = dln.bregman_minimizer(PROBLEM, [[1e-200], [1e9]])
    # corrections of 1/ln(1/Delta) and of 1/Delta^2
    np.testing.assert_allclose(sparse, dln.basis_pursuit(PROBLEM), atol=0.02)
    np.testing.assert_allclose(dense, dln.least_norm(PROBLEM), rtol=1e-10, atol=1e-12)
    weights = np.arange(1.0, 9.0)
    weighted = dln.bregman_minimizer(PROBLEM, 1e9 * weights)
    np.testing.assert_allclose(weighted, dln.least_norm(PROBLEM, weights), rtol=1e-10, atol=1e-12)
    as_tensor = dln.least_norm(PROBLEM, torch.from_numpy(weights))
    assert isinstance(as_tensor, torch.Tensor)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dln.hyperbolic_entropy("x", 1.0), "theta = 'x' must be a number"),
        (lambda: dln.mirror_map(1.0, 0.0), "balancedness has an entry 0, must be in"),
        (lambda: dln.mirror_map([1.0, 2.0], [1.0, 2.0, 3.0]), r"theta \[2\], balancedness \[3\]"),
        (lambda: dln.bregman_minimizer([[1.0]], 0.1), "problem is a list; it must be a Problem"),  # type: ignore[arg-type]
        (lambda: dln.bregman_minimizer(PROBLEM, -1.0), "balancedness has an entry -1, must be in"),
        (
            lambda: dln.bregman_minimizer(PROBLEM, [0.1] * 5),
            r"broadcast to one: balancedness \[5\], log_init \[1\], problem \[8\]",
        ),
        (lambda: dln.least_norm(PROBLEM, 0.0), "weights has an entry 0, must be in"),
        (lambda: dln.gradient_flow_limit(PROBLEM, 0.1), "start is a float; it must be a Start"),  # type: ignore[arg-type]
        (lambda: dln.kkt_residual(PROBLEM, [1.0, 2.0], 1.0), r"theta \[2\], .* problem \[8\]"),
    ],
)
def test_errors_of_use_are_one_message(call: Any, message: str) -> None:
    with pytest.raises(dln.InputError, match=message) as caught:
        call()
    assert len(caught.value.problems) == 1

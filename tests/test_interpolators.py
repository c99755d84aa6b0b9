"""Basis pursuit and least weighted norm, against optimality conditions and another solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from dln_momentum import InputError, RowSpace
from dln_momentum.theory.interpolators import basis_pursuit, least_norm


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relative_misfit(X: Tensor, theta: Tensor, y: Tensor) -> float:
    misfit = torch.linalg.vector_norm((X @ theta[..., None])[..., 0] - y, dim=-1)
    return float((misfit / torch.linalg.vector_norm(y, dim=-1)).max())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_basis_pursuit_recovers_a_sparse_vector(scale: float) -> None:
    # 3 nonzeros of 100 from 40 Gaussian rows: far inside the region of exact recovery
    X, truth = gaussian(40, 100), torch.zeros(100, dtype=torch.float64)
    truth[[3, 50, 97]] = scale * torch.tensor([1.0, -2.0, 0.1], dtype=torch.float64)
    theta = basis_pursuit(X, X @ truth)
    # a least-squares solve on three columns of condition about 2
    torch.testing.assert_close(theta, truth, rtol=1e-13, atol=1e-14 * scale)
    assert (theta != 0).sum() == 3


@pytest.mark.parametrize("standardise", [False, True])
def test_basis_pursuit_is_optimal_among_dense_targets(standardise: bool) -> None:
    X = gaussian(20, 30, seed=1)
    if standardise:
        X = (X - X.mean(0)) / X.std(0)
    y = X @ gaussian(30, seed=2)
    theta = basis_pursuit(X, y)
    assert relative_misfit(X, theta, y) < 1e-13
    assert (theta != 0).sum() <= RowSpace.of(X).rank
    # Weak duality: max <nu, y> over ||X^T nu||_inf <= 1 bounds every l1 norm from below.
    nu = cp.Variable(20)
    bound = cp.Problem(cp.Maximize(nu @ y.numpy()), [cp.norm(X.numpy().T @ nu, "inf") <= 1])
    bound.solve(solver=cp.CLARABEL)
    assert isinstance(bound.value, float | np.floating)
    # 1e-6: the tolerances of both solvers
    assert theta.abs().sum().item() == pytest.approx(float(bound.value), rel=1e-6)


def test_basis_pursuit_keeps_run_dimensions() -> None:
    X, theta = gaussian(2, 4, 6), gaussian(3, 2, 6, seed=1)
    y = (X @ theta[..., None])[..., 0]
    found = basis_pursuit(X, y)
    assert found.shape == (3, 2, 6)
    torch.testing.assert_close(found[2, 1], basis_pursuit(X[1], y[2, 1]))
    torch.testing.assert_close(basis_pursuit(X[0], y[:, 0])[1], found[1, 0])


def test_basis_pursuit_of_trivial_labels() -> None:
    X = gaussian(3, 5)
    assert not basis_pursuit(X, torch.zeros(3, dtype=torch.float64)).any()
    assert basis_pursuit(X, torch.full((3,), torch.nan, dtype=torch.float64)).isnan().all()


def test_least_norm_is_the_pseudo_inverse() -> None:
    X, y = gaussian(20, 30), gaussian(5, 20, seed=1)
    expected = y @ torch.linalg.pinv(X).mT
    # both are backward stable, at a condition number of about 20
    torch.testing.assert_close(least_norm(X, y), expected, rtol=1e-12, atol=1e-13)
    ones = torch.ones(5, 30, dtype=torch.float64)
    torch.testing.assert_close(least_norm(X, y, ones), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("decades", [1, 10, 60])
def test_weighted_least_norm_meets_its_optimality_conditions(decades: int) -> None:
    X = torch.cat([gaussian(9, 30), gaussian(1, 30, seed=4).expand(3, -1)])
    y = X @ gaussian(30, seed=1)
    generator = torch.Generator().manual_seed(2)
    weights = 10 ** (-decades * torch.rand(7, 30, generator=generator, dtype=torch.float64))
    theta = least_norm(X, y, weights)
    assert relative_misfit(X, theta, y.expand(7, -1)) < 1e-13
    # theta / w lies in the row space, to rounding of its largest coordinate
    dual = theta / weights
    rejected = RowSpace.of(X).reject(dual).abs().amax(-1)
    assert (rejected <= 1e-12 * dual.abs().amax(-1)).all()


def test_refusals() -> None:
    X, y = gaussian(4, 6), gaussian(4, seed=1)
    constant = X[:1].expand(4, -1)
    for call in (basis_pursuit, least_norm):
        with pytest.raises(ValueError, match="range of X"):
            call(constant, y)
        with pytest.raises(ValueError, match=r"y of shape \(3,\)"):
            call(X, y[:3])
    with pytest.raises(ValueError, match="weights"):
        least_norm(X, y, torch.zeros(6, dtype=torch.float64))


def test_shapes_and_infinities_are_refused_by_name() -> None:
    X, y = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([2.0]).double()
    for wrong, message in (
        (lambda: least_norm(X, y, torch.ones(3)), r"weights of shape \(3,\) must broadcast"),
        (lambda: basis_pursuit(X.expand(2, 1, 2), y.expand(3, 1)), r"y of shape \(3, 1\) must"),
        (lambda: basis_pursuit(X, y / 0), "infinite"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()

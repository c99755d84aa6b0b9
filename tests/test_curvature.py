"""The Hessian of F, sharpness, local rates and the discrete bound of the drift; tiny starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dln_momentum as dln
from dln_momentum import InputError, sparse
from dln_momentum.theory import curvature
from dln_momentum.theory.curvature import batch_sharpness, hessian, hessian_product, sharpness
from dln_momentum.theory.local_rates import step_contraction
from dln_momentum.theory.small_lambda import descent_modulus
from tests.helpers import run_app

PROBLEM = sparse(6, 9, 2)


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64)


def autograd_hessian(w: torch.Tensor, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def loss(x: torch.Tensor) -> torch.Tensor:
        u, v = x.chunk(2)
        return (X @ (u * v) - y).square().sum() / (2 * len(y))

    return torch.autograd.functional.hessian(loss, torch.cat([w[0] + w[1], w[0] - w[1]]) / 2)  # type: ignore[return-value]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_closed_form_is_the_hessian_of_autograd(seed: int) -> None:
    """(docs/theory.md#curvature.)"""
    w = weights(9, seed=seed)
    written = autograd_hessian(w, PROBLEM.X, PROBLEM.y)
    # sums of products of numbers of size 10
    torch.testing.assert_close(hessian(PROBLEM, w), written, rtol=1e-12, atol=1e-12)
    x = weights(9, seed=seed + 1)
    product = (written @ x.reshape(-1)).reshape(2, 9)
    torch.testing.assert_close(hessian_product(PROBLEM, w, x), product, rtol=1e-12, atol=1e-12)
    largest = torch.linalg.eigvalsh(written)[-1]
    torch.testing.assert_close(sharpness(PROBLEM, w), largest, rtol=1e-12, atol=0)


def test_lanczos_agrees_with_the_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    w = weights(3, 9)
    dense = sharpness(PROBLEM, w)
    monkeypatch.setattr(curvature, "DENSE", 1)
    torch.testing.assert_close(sharpness(PROBLEM, w), dense, rtol=1e-9, atol=0)


def test_batch_sharpness_is_the_mean_of_the_curvatures_of_batches() -> None:
    w, rows = weights(1, 9), torch.tensor([[0.0, 3, 0, 0, 3, 0], [2, 0, 2, 0, 2, 0]]).double()
    found = []
    for row in rows:
        root = row.sqrt()
        H = autograd_hessian(w[:, 0], PROBLEM.X * root[:, None], PROBLEM.y * root)
        u, v = (w[0, 0] + w[1, 0]) / 2, (w[0, 0] - w[1, 0]) / 2
        g = PROBLEM.X.T @ (row * (PROBLEM.X @ (u * v) - PROBLEM.y)) / 6
        x = torch.cat([g * v, g * u])
        found.append(x @ H @ x / (x @ x))
    expected = torch.stack(found).mean()[None]
    measured = batch_sharpness(PROBLEM, w, rows[:, None])
    torch.testing.assert_close(measured, expected, rtol=1e-12, atol=0)
    assert batch_sharpness(PROBLEM, w)[0] <= sharpness(PROBLEM, w)[0] * (1 + 1e-12)


def test_runs_record_their_sharpness() -> None:
    runs = dln.train(
        [PROBLEM, sparse(6, 9, 2, seed=1)], gamma=[0.01, 0.02], max_steps=50, curvature=True
    )
    recorded = runs.to_dataset()["sharpness"]
    np.testing.assert_array_equal(recorded[-1], runs.sharpness)
    np.testing.assert_allclose(runs.sharpness_threshold, [380.0, 190.0], rtol=1e-12)
    flow = dln.flow(PROBLEM, lam=1.0, times=[1.0, 2.0])
    assert flow.sharpness.shape == (3,)


def test_the_monitors_of_a_run(tmp_path: Path) -> None:
    keys = ["data.n=6", "data.d=9", "data.s=2", "trainer.max_steps=20", "trainer.block_size=1"]
    batches = ["sampling.batch_size=2", "outputs.dashboard=false"]
    average = run_app(tmp_path / "a", *keys, *batches, "callbacks=average").history()
    iterates = average["theta"].to_numpy()
    assert average["step"].to_numpy().tolist() == list(range(21))
    means = iterates.cumsum(0) / np.arange(1, 22)[:, None]
    np.testing.assert_allclose(average["theta_average"], means, rtol=0, atol=1e-15)
    error = np.linalg.norm(means - average["theta_star"].to_numpy(), axis=1)
    np.testing.assert_allclose(average["average_recovery_error"], error, rtol=1e-12)
    curved = run_app(tmp_path / "c", *keys, *batches, "callbacks=curvature").history()
    assert (curved["sharpness"] > 0).all()
    assert curved["batch_sharpness"].notnull().all()
    np.testing.assert_allclose(curved["sharpness_threshold"], 380.0, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(h=st.floats(0, 500), gamma=st.floats(1e-4, 0.1), beta=st.floats(0, 0.99))
def test_the_contraction_is_a_spectral_radius(h: float, gamma: float, beta: float) -> None:
    """(docs/theory.md#local-rates.)"""
    matrix = np.array([[1 + beta - gamma * h, -beta], [1, 0]])
    found = float(step_contraction(torch.tensor(h, dtype=torch.float64), gamma, beta))
    # eigenvalues that nearly coincide have half of the digits
    assert found == pytest.approx(np.abs(np.linalg.eigvals(matrix)).max(), abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_modulus_of_a_step_is_its_definition(seed: int) -> None:
    """(docs/theory.md#discrete-threshold-steps.)"""
    w, after = weights(9, seed=seed), weights(9, seed=seed + 1)
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    p, q = (after[0] + after[1]) / 2, (after[0] - after[1]) / 2
    slope = PROBLEM.gradient(u * v) @ (v * (p - u) + u * (q - v))
    rest = PROBLEM.loss(p * q) - PROBLEM.loss(u * v) - slope
    size = (p - u).square().sum() + (q - v).square().sum()
    torch.testing.assert_close(
        descent_modulus(PROBLEM, w, after), 2 * rest / size, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("alpha", [1e-60, 1e-120])
def test_a_tiny_start_is_certified(alpha: float) -> None:
    """(docs/theory.md#tiny-starts.)"""
    run = dln.train(sparse(5, 8, 1), dln.uniform(alpha), gamma=0.05, beta=0.9, max_steps=20_000)
    found = run.certify()
    # a thousand steps, each to rounding of terms of size ln(1/Delta) = 700
    assert found.kkt_residual < 1e-12
    assert found.path_identity_error < 1e-9


@pytest.mark.parametrize("alpha", [1e-150, 1e-200])
def test_a_start_without_a_delta_is_refused_by_name(alpha: float) -> None:
    """(docs/theory.md#tiny-starts.)"""
    with pytest.raises(InputError, match=f"alpha = {alpha:g}: Delta_0 .* must be >= 1e-290"):
        dln.uniform(alpha)
    with pytest.raises(InputError, match=f"scale = {alpha:g}"):
        dln.biased(alpha, 0.5)

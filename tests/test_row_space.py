"""The row space: {X theta = y} = {V theta = b} at every rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dln_momentum import RowSpace

# A thin SVD and one product of 30 terms: a few dozen roundings.
ROUNDING = 1e-13


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def standardised(X: torch.Tensor) -> torch.Tensor:
    return (X - X.mean(0)) / X.std(0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), d=st.integers(1, 12), r=st.integers(1, 12))
def test_the_interpolators_are_those_of_v_and_b(seed: int, n: int, d: int, r: int) -> None:
    # Orthonormal-ish factors keep the condition number moderate, so the rank is beyond doubt.
    r = min(r, n, d)
    left = torch.linalg.qr(gaussian(n, r, seed=seed))[0]
    right = torch.linalg.qr(gaussian(d, r, seed=seed + 1))[0]
    X = left @ torch.diag(torch.linspace(1, 3, r, dtype=torch.float64)) @ right.mT
    rows, theta = RowSpace.of(X), gaussian(d, seed=seed + 2)
    y = X @ theta
    assert rows.rank == r
    # theta interpolates, hence V theta = b; and the point V^T b interpolates as well.
    torch.testing.assert_close(rows.coordinates(theta), rows.target(y), rtol=0, atol=1e-12)
    torch.testing.assert_close(X @ rows.span(rows.target(y)), y, rtol=0, atol=1e-12)
    assert rows.range_residual(y) < ROUNDING * 10 or y.norm() < 1e-6


def test_basis_is_orthonormal_and_the_projections_split_the_space() -> None:
    rows, z = RowSpace.of(gaussian(20, 30)), gaussian(7, 30, seed=1)
    identity = torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(rows.basis @ rows.basis.mT, identity, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(rows.project(z) + rows.reject(z), z, rtol=0, atol=ROUNDING)
    assert rows.coordinates(rows.reject(z)).abs().max() < ROUNDING
    torch.testing.assert_close(rows.project(rows.project(z)), rows.project(z))


def test_standardised_columns_lose_one_rank() -> None:
    X = standardised(gaussian(20, 30))
    rows = RowSpace.of(X)
    assert rows.rank == 19
    # The range is that of centred vectors: a constant y lies wholly outside it.
    assert rows.range_residual(torch.ones(20, dtype=torch.float64)) == pytest.approx(1, abs=1e-12)
    assert rows.range_residual(X @ gaussian(30, seed=2)) < 1e-12


def test_a_stack_of_different_ranks_equals_its_members() -> None:
    full = gaussian(6, 9)
    X = torch.stack([full, standardised(full), torch.outer(full[:, 0], full[0])])
    rows, theta = RowSpace.of(X), gaussian(3, 9, seed=3)
    y = (X @ theta[..., None])[..., 0]
    assert rows.rank == 6
    assert rows.ranks.tolist() == [6, 5, 1]
    assert not rows.basis[2, 1:].any()
    for i in range(3):
        alone = RowSpace.of(X[i])
        torch.testing.assert_close(rows.project(theta)[i], alone.project(theta[i]))
        torch.testing.assert_close(rows.target(y)[i, : alone.rank], alone.target(y[i]))
    # One matrix broadcasts over many vectors a run: [2, runs, d] with [runs, n, d].
    torch.testing.assert_close(rows.project(theta.expand(2, 3, 9))[1], rows.project(theta))


def test_range_residual_of_zero_is_zero() -> None:
    assert RowSpace.of(gaussian(3, 5)).range_residual(torch.zeros(3, dtype=torch.float64)) == 0


@pytest.mark.parametrize(
    "X",
    [
        torch.zeros(2, 3, dtype=torch.float64),
        torch.full((2, 3), torch.nan, dtype=torch.float64),
        torch.ones(2, 3, dtype=torch.int64),
        torch.ones(3, dtype=torch.float64),
        torch.ones(0, 3, dtype=torch.float64),
    ],
)
def test_refuses_what_has_no_row_space(X: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^X.* must"):
        RowSpace.of(X)

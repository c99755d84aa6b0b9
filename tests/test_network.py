"""The diagonal linear network: coordinates, initialisations, and condition (C1)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dln_momentum.errors import InputError
from dln_momentum.network import DiagonalLinearNet


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_two_coordinate_systems_agree(seed: int) -> None:
    net = DiagonalLinearNet.gaussian(7, alpha=0.3, seed=seed, runs=(4,))
    w_plus, w_minus = net.w_plus, net.w_minus
    # squares of numbers of size one, differences of them: a few ulp of the largest
    assert torch.allclose(net.theta, (w_plus**2 - w_minus**2) / 4, rtol=0, atol=1e-15)
    assert torch.allclose(net.balancedness, (net.u**2 - net.v**2).abs(), rtol=0, atol=1e-15)


def test_forward_is_one_prediction_for_each_run_and_row() -> None:
    net = DiagonalLinearNet.gaussian(5, alpha=1.0, seed=0, runs=(2, 3))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.einsum("md,abd->abm", x, net.u * net.v)
    assert net(x).shape == (2, 3, 4)
    assert torch.allclose(net(x), expected, rtol=1e-14, atol=1e-14)


def test_uniform_and_biased_initialisations() -> None:
    net = DiagonalLinearNet.uniform(4, alpha=0.1)
    assert torch.allclose(net.balancedness, torch.full((4,), 0.02, dtype=torch.float64))
    assert net.scale.item() == pytest.approx(math.sqrt(2) * 0.1, rel=1e-15)
    biased = DiagonalLinearNet.biased(4, scale=0.5, phi=0.03)
    assert torch.allclose(biased.theta, torch.full((4,), 0.25, dtype=torch.float64))
    assert biased.balancedness[0].item() == pytest.approx((0.5 / 0.03) ** 2 - 0.015**2, rel=1e-13)


def test_gaussian_is_a_function_of_its_seed_alone() -> None:
    torch.manual_seed(0)
    first = DiagonalLinearNet.gaussian(5, alpha=1.0, seed=3)
    torch.manual_seed(1)
    again, other = (DiagonalLinearNet.gaussian(5, alpha=1.0, seed=s) for s in (3, 4))
    assert torch.equal(first.u, again.u)
    assert not torch.equal(first.u, other.u)


@pytest.mark.parametrize(
    ("u", "v", "message"),
    [
        ([1.0, 2.0], [0.0, -2.0], "condition \\(C1\\)"),
        ([1.0, math.nan], [0.0, 0.0], "finite"),
        ([1.0, 2.0], [0.0], "share one shape"),
    ],
)
def test_bad_initialisations_are_refused(u: list, v: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiagonalLinearNet(torch.tensor(u), torch.tensor(v))


def test_biased_with_phi_one_is_balanced_and_refused() -> None:
    with pytest.raises(InputError, match="C1"):
        DiagonalLinearNet.biased(3, scale=1.0, phi=1.0)

"""The hyperbolic entropy against 60 digits, its limits, and its Bregman divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dln_momentum.theory.entropy import (
    bregman_divergence,
    hyperbolic_entropy,
    inverse_mirror_map,
    mirror_map,
)

# A handful of operations, each good to an ulp (1.1e-16), and no cancellation by more than 6.
FEW_ULP = 3e-15
# |a|, |b| <= 1e300 Delta and Delta in [1e-200, 1e200], kept inside the range of a double.
exponents = st.tuples(st.floats(-200, 200), st.floats(-290, 299), st.floats(-290, 299)).filter(
    lambda e: all(-300 < e[0] + ratio < 300 for ratio in e[1:])
)
signs = st.sampled_from([-1.0, 1.0])


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def entropy_60(theta: float, delta: float) -> Any:
    t, k = mp.mpf(theta), mp.mpf(delta)
    return (2 * t * mp.asinh(2 * t / k) - mp.sqrt(4 * t**2 + k**2) + k) / 4


def divergence_60(a: float, b: float, delta: float) -> Any:
    slope = mp.asinh(2 * mp.mpf(b) / mp.mpf(delta)) / 2
    return entropy_60(a, delta) - entropy_60(b, delta) - slope * (mp.mpf(a) - mp.mpf(b))


def assert_relative(value: float, truth: Callable[[], Any], tolerance: float) -> None:
    # The reference cancels itself: at a ratio of 1e-290 it loses 580 digits.
    with mp.workdps(1300):
        exact = truth()
        assert abs(mp.mpf(value) - exact) <= tolerance * abs(exact) + mp.mpf("1e-305")


@settings(max_examples=60, deadline=None)
@given(exponents, signs)
def test_entropy_and_mirror_map_to_a_few_ulp(e: tuple[float, float, float], sign: float) -> None:
    delta = 10 ** e[0]
    theta = sign * 10 ** (e[0] + e[1])
    t, k = double(theta), double(delta)
    assert_relative(hyperbolic_entropy(t, k).item(), lambda: entropy_60(theta, delta), FEW_ULP)
    assert_relative(
        mirror_map(t, k).item(), lambda: mp.asinh(2 * mp.mpf(theta) / mp.mpf(delta)) / 2, FEW_ULP
    )


@settings(max_examples=60, deadline=None)
@given(exponents, signs, signs)
def test_divergence_to_a_few_ulp(e: tuple[float, float, float], s: float, t: float) -> None:
    delta = 10 ** e[0]
    a, b = s * 10 ** (e[0] + e[1]), t * 10 ** (e[0] + e[2])
    value = bregman_divergence(double(a), double(b), double(delta)).item()
    assert_relative(value, lambda: divergence_60(a, b, delta), FEW_ULP)


@settings(max_examples=60, deadline=None)
@given(exponents, signs, st.floats(-15.5, 1), signs)
def test_divergence_of_neighbours(
    e: tuple[float, float, float], sign: float, gap: float, side: float
) -> None:
    delta = 10 ** e[0]
    a = sign * 10 ** (e[0] + e[1])
    b = a * (1 + side * 10**gap)
    value = bregman_divergence(double(a), double(b), double(delta)).item()
    assert_relative(value, lambda: divergence_60(a, b, delta), FEW_ULP)


def test_divergence_is_zero_on_the_diagonal_and_at_the_origin() -> None:
    a = double(0.0, 1.0, -1e150, 1e-300)
    for delta in (1e-200, 1.0, 1e200):
        assert bregman_divergence(a, a, torch.full_like(a, delta)) == 0
    # D(a, 0) = psi(a), for which two different formulas are used
    torch.testing.assert_close(
        bregman_divergence(a[:2], torch.zeros(2, dtype=torch.float64), double(0.3, 0.3)),
        hyperbolic_entropy(a[:2], double(0.3, 0.3)),
        rtol=FEW_ULP,
        atol=0,
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(-200, 200), st.floats(-690, 690))
def test_inverse_mirror_map_inverts(log_delta: float, twice_z: float) -> None:
    z, delta = double(twice_z / 2), double(10**log_delta)
    theta = inverse_mirror_map(z, delta)
    assume(1e-300 < abs(theta.item()) < 1e300)
    # asinh turns a relative error of sinh into an absolute one, hence the ulp of z itself
    torch.testing.assert_close(mirror_map(theta, delta), z, rtol=FEW_ULP, atol=1e-15)


def test_inverse_mirror_map_where_sinh_overflows() -> None:
    with mp.workdps(60):
        exact = mp.mpf(1e-200) / 2 * mp.sinh(800)
        value = inverse_mirror_map(double(400.0), double(1e-200)).item()
        assert abs(value - exact) < FEW_ULP * exact


def test_small_balancedness_is_l1_and_large_is_weighted_l2() -> None:
    theta = double(1.5, -0.2, 0.0, 3.0)
    for k in (20, 40, 80, 160):
        # psi / (ln(1/Delta)/2) = ||theta||_1 + O(1/ln(1/Delta))
        delta = torch.full_like(theta, 10.0**-k)
        scaled = hyperbolic_entropy(theta, delta) / (-delta[0].log() / 2)
        constant = (theta.abs() * (torch.log(4 * theta.abs().clamp(min=1e-9)) - 1)).sum()
        expected = theta.abs().sum() - constant / delta[0].log()
        torch.testing.assert_close(scaled, expected, rtol=1e-13, atol=0)
    weights = double(1.0, 2.0, 5.0, 0.5)
    for scale in (1e4, 1e6, 1e100):
        # the next term of the series is smaller by theta^2 / (3 Delta^2)
        quadratic = (theta**2 / (2 * scale * weights)).sum()
        torch.testing.assert_close(
            hyperbolic_entropy(theta, scale * weights),
            quadratic,
            rtol=36 / scale**2 + 1e-15,
            atol=0,
        )


def test_mirror_map_is_the_gradient() -> None:
    theta, delta = double(1.0, -0.3, 2.0), double(0.1, 1.0, 7.0)
    h = 1e-5
    shifts = h * torch.eye(3, dtype=torch.float64)
    slopes = hyperbolic_entropy(theta + shifts, delta) - hyperbolic_entropy(theta - shifts, delta)
    # central differences: h^2 times a third derivative of order one
    torch.testing.assert_close(slopes / (2 * h), mirror_map(theta, delta), rtol=0, atol=1e-8)


def test_three_points() -> None:
    # D(a, c) = D(a, b) + D(b, c) + <psi'(b) - psi'(c), a - b>, here for a stack of runs
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    delta = torch.rand(5, 8, generator=generator, dtype=torch.float64) + 1e-3
    corner = ((mirror_map(b, delta) - mirror_map(c, delta)) * (a - b)).sum(-1)
    total = bregman_divergence(a, b, delta) + bregman_divergence(b, c, delta) + corner
    assert total.shape == (5,)
    torch.testing.assert_close(bregman_divergence(a, c, delta), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.inf, torch.nan])
def test_refuses_balancedness_that_is_not_positive(bad: float) -> None:
    theta, delta = double(1.0, 2.0), double(1.0, bad)
    for call in (hyperbolic_entropy, mirror_map, inverse_mirror_map):
        with pytest.raises(ValueError, match="balancedness"):
            call(theta, delta)
    with pytest.raises(ValueError, match="balancedness"):
        bregman_divergence(theta, theta, delta)

"""The time-varying mirror flow, and the three-point identity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from dln_momentum import InputError, gradient_flow, momentum_flow, sparse
from dln_momentum.flows import quadrature_path_integrals
from dln_momentum.theory.entropy import mirror_map
from dln_momentum.theory.mirror_flow import (
    linear_term,
    mirror_flow_residual,
    mirror_position,
)
from dln_momentum.theory.three_point import three_point_sides
from tests.flow_oracles import uniform_start

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)
SMALL = sparse(4, 7, 2, seed=1)


def linear_term_by_its_equation(lam: float, state: np.ndarray, times: np.ndarray) -> np.ndarray:
    """b [T, d] from lambda b'' + b' = -(lambda/2) [(w_+'/w_+)^2 - (w_-'/w_-)^2], b_0 = b'_0 = 0."""
    X, y, n, d = SMALL.X.numpy(), SMALL.y.numpy(), SMALL.n, SMALL.d

    def rhs(t: float, s: np.ndarray) -> np.ndarray:
        wp, wm, dwp, dwm, _, db = s.reshape(6, d)
        g = X.T @ (X @ ((wp * wp - wm * wm) / 4) - y) / n
        ddb = -db / lam - ((dwp / wp) ** 2 - (dwm / wm) ** 2) / 2
        ddw = -(dwp + g * wp) / lam, -(dwm - g * wm) / lam
        return np.concatenate([dwp, dwm, *ddw, db, ddb])

    state = np.concatenate([state, np.zeros(2 * d)])
    solution = solve_ivp(rhs, (0, times[-1]), state, "DOP853", times, rtol=1e-12, atol=1e-15)
    return solution.y[4 * d : 5 * d].T


@pytest.mark.parametrize("lam", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("speed", [0.0, 0.2])
def test_linear_term_solves_its_equation(lam: float, speed: float):
    w = torch.ones(7, dtype=torch.float64)
    velocity = speed * torch.linspace(-1, 1, 7, dtype=torch.float64)
    times = np.linspace(0.1, 5.0, 20)
    path = momentum_flow(
        SMALL,
        w,
        1.2 * w,
        lam,
        5.0,
        dw_plus_0=velocity,
        dw_minus_0=velocity,
        times=torch.from_numpy(times),
    )
    assert path.sign_changes.sum() == 0
    state = torch.cat([w, 1.2 * w, velocity, velocity]).numpy()
    expected = linear_term_by_its_equation(lam, state, times)
    # the accuracy of the path
    np.testing.assert_allclose(linear_term(path)[1:].numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lam", [1e-3, 1e-2, 0.1, 0.3])
def test_mirror_flow_residual(lam: float):
    path = momentum_flow(DEFAULT, W_0, W_0, lam, 200.0)
    residual = mirror_flow_residual(path, *quadrature_path_integrals(DEFAULT, path))
    # G is of order 1 to 10; what is left is the error of the quadrature, not of the statement
    assert residual.abs().max() < 1e-8 * path.G.abs().max()


def test_mirror_position_stays_in_the_row_space():
    """From rest z_t - z_0 is an integral of gradients, though theta and Delta move freely."""
    path = momentum_flow(DEFAULT, W_0, W_0, 10.0, 50.0)
    moved = mirror_position(path) - mirror_position(path)[0]
    outside = DEFAULT.row_space.reject(moved)
    assert outside.abs().max() < 1e-13 * moved.abs().max()


def test_gradient_flow_has_no_linear_term():
    path = gradient_flow(DEFAULT, W_0, W_0, 20.0)
    assert linear_term(path).abs().max() < 1e-12


def test_the_residual_is_refused_across_a_zero():
    path = momentum_flow(DEFAULT, W_0, W_0, 10.0, 100.0)
    with pytest.raises(InputError, match="sign changes 0"):
        quadrature_path_integrals(DEFAULT, path)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), log_delta=st.floats(-10, 10))
def test_three_point_identity(seed: int, log_delta: float):
    rng = torch.Generator().manual_seed(seed)
    a, b, c = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    delta = 10**log_delta * torch.rand(6, generator=rng, dtype=torch.float64).clamp(min=0.1)
    left, right = three_point_sides(a, b, c, delta)
    # rounding of terms that are at most this large
    scale = float((mirror_map(a, delta).abs() + mirror_map(c, delta).abs() + 1).max())
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-13 * scale)

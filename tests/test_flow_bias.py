"""I_+-, Delta_inf and the minimiser of the momentum flow, sign changes included.

The regular form of I is the equation of motion integrated once, so that much of what follows from
it holds by construction. What is checked here therefore takes I from its definition (by quadrature,
or along a contour in complex time where there are sign changes) or the limit from a dual Newton.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dln_momentum import InputError, gradient_flow, momentum_flow, sparse
from dln_momentum.flows import effective_flow, quadrature_path_integrals, summed_path_integrals
from dln_momentum.theory.continuous_bias import (
    boundary_terms,
    limit_bias,
    path_integrals,
    running_bias,
)
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, kkt_residual, log_init
from dln_momentum.theory.minimizers import bregman_minimizer
from tests.flow_oracles import contour_integrals, dual_minimizer, uniform_start

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)
LAMBDAS = (1e-3, 1e-2, 0.1, 1.0, 4.0, 10.0)


@pytest.fixture(scope="module", params=LAMBDAS)
def converged(request: pytest.FixtureRequest):
    path = momentum_flow(DEFAULT, W_0, W_0, request.param, math.inf, tol=1e-21)
    assert path.converged
    return path


@pytest.mark.parametrize("lam", [1.0, 4.0, 10.0, 30.0])
def test_path_integrals_agree_with_a_contour_in_complex_time(lam: float):
    """(docs/theory.md#sign-changes.)"""
    time = 100.0
    w, integrals, zeros = contour_integrals(DEFAULT, W_0.numpy(), lam, [0, 1j, time + 1j, time])
    path = momentum_flow(DEFAULT, W_0, W_0, lam, time)
    found = torch.stack([i[-1] for i in path_integrals(path)]).numpy()
    np.testing.assert_allclose(found, integrals, rtol=0, atol=1e-9)
    np.testing.assert_allclose(path.w_plus[-1].numpy(), w[0].real, rtol=0, atol=1e-10)
    # each zero contributes i pi: the contour counts them too
    crossings = (zeros / np.pi).sum(0)
    np.testing.assert_allclose(path.sign_changes.numpy(), crossings, rtol=0, atol=1e-9)
    assert lam < 4 or path.sign_changes.sum() > 0


@pytest.mark.parametrize("lam", [0.1, 10.0])
def test_summed_integrals_agree_with_a_contour_in_complex_time(lam: float):
    """The definition away from the zeros, the finite part around them, and an honest error bar.

    (docs/theory.md#contour.)
    """
    time = 100.0
    _, integrals, _ = contour_integrals(DEFAULT, W_0.numpy(), lam, [0, 0.1j, time + 0.1j, time])
    path = momentum_flow(DEFAULT, W_0, W_0, lam, time)
    summed = summed_path_integrals(DEFAULT, path)
    found = summed.integrals[:, -1].numpy()
    error = np.abs(found - integrals).max()
    assert error < max(1e-9, float(summed.uncertainty[-1]))
    assert error < 1e-6
    assert (summed.fraction == 1) == (lam < 1)
    assert summed.fraction > 0.8


def test_asymptotic_balancedness_with_sign_changes():
    """Delta_inf from I of the definition, against |w_+ w_-| of the limit."""
    lam, time = 10.0, 4000.0
    _, integrals, _ = contour_integrals(DEFAULT, W_0.numpy(), lam, [0, 1j, 80 + 1j, 80, time])
    path = momentum_flow(DEFAULT, W_0, W_0, lam, time)
    assert path.loss[-1] < 1e-18
    assert path.sign_changes.sum() > 5
    predicted = asymptotic_balancedness(path.balancedness[0], *torch.from_numpy(integrals))
    torch.testing.assert_close(predicted, path.balancedness[-1], rtol=1e-6, atol=0)


def test_the_limit_is_the_minimiser(converged):
    bias = limit_bias(converged)
    theta = converged.theta[-1]
    # the loss left over is 1e-21: 1e-10 in the residual, 1e-9 in theta
    oracle = dual_minimizer(DEFAULT, bias.balancedness, bias.log_init)
    torch.testing.assert_close(theta, oracle, rtol=0, atol=1e-9)
    target = DEFAULT.row_space.target(DEFAULT.y)
    found = bregman_minimizer(DEFAULT.row_space, target, bias.balancedness, bias.log_init)
    torch.testing.assert_close(theta, found.theta, rtol=0, atol=1e-9)


def test_balancedness_of_the_limit(converged):
    """From I of the definition (but for the finite parts) and from the regular form."""
    bias, summed = limit_bias(converged), summed_path_integrals(DEFAULT, converged)
    last = converged.balancedness[-1]
    by_definition = asymptotic_balancedness(converged.balancedness[0], *summed.integrals[:, -1])
    torch.testing.assert_close(by_definition, last, rtol=1e-6, atol=0)
    torch.testing.assert_close(bias.balancedness, last, rtol=1e-6, atol=0)
    if converged.sign_changes.sum() == 0:
        assert (bias.i_plus > 0).all()
        assert (bias.i_minus > 0).all()
        assert (bias.balancedness < converged.balancedness[0]).all()


@pytest.mark.slow
def test_the_effective_initialisation_leads_to_the_other_minimiser(converged):
    """(docs/theory.md#effective-initialisation.)"""
    balancedness = limit_bias(converged).balancedness
    path = effective_flow(DEFAULT, balancedness)
    assert path.converged
    oracle = dual_minimizer(DEFAULT, balancedness, torch.zeros_like(balancedness))
    torch.testing.assert_close(path.theta[-1], oracle, rtol=0, atol=1e-8)
    w = balancedness.sqrt()
    direct = gradient_flow(DEFAULT, w, w, float(path.t[-1]), form="direct", times=path.t[-1:])
    torch.testing.assert_close(direct.theta[-1], oracle, rtol=0, atol=1e-8)


@pytest.mark.parametrize("lam", [0.01, 0.3])
def test_every_point_of_the_path_is_a_minimiser_on_its_level_set(lam: float):
    """With I summed from its definition, nothing in this is an identity."""
    path = momentum_flow(DEFAULT, W_0, W_0, lam, 20.0)
    kept = [
        i + boundary
        for i, boundary in zip(
            quadrature_path_integrals(DEFAULT, path), boundary_terms(path), strict=True
        )
    ]
    balancedness = asymptotic_balancedness(path.balancedness[0], *kept)
    # the quadrature is good for 1e-8 here
    torch.testing.assert_close(balancedness, path.balancedness, rtol=1e-7, atol=0)
    c = log_init(W_0, W_0, *kept)
    late = path.t > lam
    residual = kkt_residual(DEFAULT.row_space, path.theta[late], balancedness[late], c[late])
    assert residual.max() < 1e-6
    running = running_bias(path)
    torch.testing.assert_close(running.log_init, c, rtol=0, atol=1e-7)
    torch.testing.assert_close(running.balancedness, path.balancedness, rtol=1e-10, atol=0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), log_lam=st.floats(-2.0, 0.0))
def test_path_integrals_from_any_speed(seed: int, log_lam: float):
    problem, lam = sparse(4, 7, 2, seed=1), 10**log_lam
    rng = torch.Generator().manual_seed(seed)
    w_plus, w_minus = 1 + torch.rand(2, 7, generator=rng, dtype=torch.float64)
    speed = 0.2 * torch.randn(2, 7, generator=rng, dtype=torch.float64)
    path = momentum_flow(
        problem, w_plus, w_minus, lam, 3.0, dw_plus_0=speed[0], dw_minus_0=speed[1]
    )
    assume(not path.sign_changes.any())
    for regular, summed in zip(
        path_integrals(path), quadrature_path_integrals(problem, path), strict=True
    ):
        torch.testing.assert_close(regular, summed, rtol=1e-6, atol=1e-8)


def test_a_start_with_speed_still_leads_to_its_minimiser():
    problem = sparse(4, 7, 2, seed=1)
    w = torch.ones(7, dtype=torch.float64)
    speed = torch.linspace(-0.5, 0.5, 7, dtype=torch.float64)
    path = momentum_flow(
        problem, w, w, 0.5, math.inf, dw_plus_0=speed, dw_minus_0=-speed, tol=1e-24
    )
    bias = limit_bias(path)
    torch.testing.assert_close(bias.balancedness, path.balancedness[-1], rtol=1e-9, atol=0)
    oracle = dual_minimizer(problem, bias.balancedness, bias.log_init)
    torch.testing.assert_close(path.theta[-1], oracle, rtol=0, atol=1e-9)


def test_a_path_of_one_time_has_integrals_of_zero():
    start = (W_0 * W_0 + 4 * DEFAULT.theta_star.clamp(min=0)).sqrt()  # type: ignore[union-attr]
    other = (W_0 * W_0 + 4 * (-DEFAULT.theta_star).clamp(min=0)).sqrt()  # type: ignore[operator]
    path = momentum_flow(DEFAULT, start, other, 1.0, 10.0, tol=1e-25)
    summed = summed_path_integrals(DEFAULT, path)
    assert summed.integrals.tolist() == [[[0.0] * DEFAULT.d]] * 2
    assert summed.uncertainty.tolist() == [0.0]
    assert summed.fraction == 1


def test_the_quadrature_is_refused_across_a_zero():
    path = momentum_flow(DEFAULT, W_0, W_0, 10.0, 100.0)
    with pytest.raises(InputError, match="sign changes 0"):
        quadrature_path_integrals(DEFAULT, path)

"""(gamma, beta) <-> (lambda, eps), the acceleration rule and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dln_momentum import InputError, Momentum
from dln_momentum.rates import Regime

# a few roundings, each amplified by 1/(1-beta) <= 1e3 in lambda: 1e-12 leaves room
CLOSE = {"rel_tol": 1e-11}
gammas = st.floats(1e-8, 1e3)
betas = st.floats(0.0, 0.999)


@given(gamma=gammas, beta=betas)
def test_every_pair_names_the_same_run(gamma: float, beta: float) -> None:
    m = Momentum(gamma, beta)
    assert math.isclose(m.lam * (1 - beta), m.eps, **CLOSE)
    assert math.isclose(m.lam_ks, gamma * (1 + beta) / (2 * (1 - beta) ** 2), **CLOSE)
    for pair in (
        {"lam": m.lam, "beta": beta},
        {"lam": m.lam, "eps": min(m.eps, m.lam)},
        {"eps": m.eps, "beta": beta},
    ):
        again = Momentum.from_pair(**pair)
        assert math.isclose(again.gamma, gamma, **CLOSE)
        # beta is a difference from 1: absolute accuracy
        assert math.isclose(again.beta, beta, abs_tol=1e-12)


@given(gamma=gammas, beta=betas)
def test_lam_and_gamma_determine_beta(gamma: float, beta: float) -> None:
    again = Momentum.from_pair(lam=max(Momentum(gamma, beta).lam, gamma), gamma=gamma)
    assert math.isclose(again.beta, beta, abs_tol=1e-12)


@given(gamma=gammas, beta=betas, fraction=st.floats(1e-3, 1.0))
def test_acceleration_keeps_lambda_and_multiplies_eps(
    gamma: float, beta: float, fraction: float
) -> None:
    slow = Momentum(gamma, beta)
    rho = fraction * slow.max_speed_up
    fast = slow.accelerated(rho)
    # 1 - beta' = rho (1 - beta) is rounded at 1: an absolute 1e-16 over rho (1 - beta) = fraction
    assert math.isclose(fast.lam, slow.lam, rel_tol=1e-12 / fraction)
    assert math.isclose(fast.eps, rho * slow.eps, rel_tol=1e-12 / fraction)


def test_full_acceleration_is_gradient_descent_with_step_lambda() -> None:
    m = Momentum(0.01, 0.9)
    fast = m.accelerated(m.max_speed_up)
    assert fast.beta == pytest.approx(0, abs=1e-15)
    assert fast.gamma == pytest.approx(m.lam, rel=1e-14)


def test_gradient_descent_is_eps_equal_to_lambda() -> None:
    m = Momentum(0.3)
    assert m.lam == m.eps == m.gamma
    assert Momentum.from_pair(lam=0.3, eps=0.3).beta == 0


@pytest.mark.parametrize(
    ("lam", "regime"),
    [(0.01, Regime.GRADIENT_FLOW), (1.0, Regime.MOMENTUM), (100.0, Regime.OSCILLATION)],
)
def test_regimes(lam: float, regime: Regime) -> None:
    assert Momentum.from_pair(lam=lam, beta=0.9).regime is regime


@pytest.mark.parametrize(
    ("given_keys", "message"),
    [
        ({"gamma": -1.0, "beta": 0.5}, "gamma = -1 must be finite and > 0"),
        ({"gamma": math.nan, "beta": 0.5}, "gamma = nan"),
        ({"gamma": 0.1, "beta": 1.0}, r"beta = 1 must be in \[0, 1\)"),
        ({"gamma": 0.0, "beta": -0.1}, "2 problems"),
        ({"lam": 1.0, "eps": 2.0}, "eps = 2 must be <= lam = 1"),
        ({"lam": 1.0, "gamma": 2.0}, "gamma = 2 must be <= lam = 1"),
        ({"lam": 1.0, "eps": 1e-17}, r"eps = 1e-17 is too small beside lam = 1 \(beta = 1 - eps"),
        ({"lam": 1.0, "gamma": 1e-40}, "gamma = 1e-40 is too small beside lam = 1"),
        ({"gamma": 0.01, "beta": 0.9, "lam": 1.0}, "give exactly one of the pairs"),
        ({"gamma": 0.01, "eps": 0.1}, "give exactly one of the pairs"),
        ({}, "nothing given"),
    ],
)
def test_bad_parameters_are_refused_by_name(given_keys: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Momentum.from_pair(**given_keys)


@pytest.mark.parametrize("rho", [0.0, -1.0, 10.01, math.nan])
def test_rho_outside_its_range_is_refused(rho: float) -> None:
    with pytest.raises(InputError, match="rho = "):
        Momentum(0.01, 0.9).accelerated(rho)


def test_a_pair_whose_gamma_is_representable_never_overflows() -> None:
    """eps^2 alone is beyond the largest float; gamma = eps^2/lambda is not."""
    assert Momentum.from_pair(lam=1e200, eps=1e190).gamma == pytest.approx(1e180, rel=1e-15)


@pytest.mark.parametrize("beta", [0.002, 0.123, 0.5, 0.9, 0.987])
def test_the_largest_acceleration_leaves_no_momentum(beta: float) -> None:
    momentum = Momentum(0.01, beta)
    assert momentum.accelerated(momentum.max_speed_up).beta == 0.0

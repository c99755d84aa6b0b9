"""What a small lambda guarantees, and the limit of Delta_inf as lambda -> 0."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from dln_momentum import InputError, gradient_flow, momentum_flow, sparse
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.small_lambda import (
    balance_drift,
    balance_drift_bound,
    lambda_threshold,
    small_lambda_balancedness,
)
from tests.flow_oracles import uniform_start

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)


def test_threshold_from_zero_is_the_posters():
    found = lambda_threshold(DEFAULT, W_0, W_0)
    expected = DEFAULT.n / DEFAULT.y.square().sum() * (W_0 * W_0).min()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.99])
def test_below_the_threshold_the_balancedness_never_vanishes(share: float):
    """(docs/theory.md#threshold.)"""
    lam = share * float(lambda_threshold(DEFAULT, W_0, W_0))
    path = momentum_flow(DEFAULT, W_0, W_0, lam, 60.0)
    assert path.sign_changes.sum() == 0
    assert (path.w_plus * path.w_minus > 0).all()


@pytest.mark.parametrize("lam", [1e-3, 0.1, 1.0, 10.0, 100.0])
def test_the_drift_of_the_balance_is_bounded(lam: float):
    path = momentum_flow(DEFAULT, W_0, W_0, lam, 60.0)
    bound = balance_drift_bound(lam, path.loss[0])
    assert (balance_drift(path) <= bound).all()
    assert (balance_drift(path).sum(-1) <= bound).all()


@pytest.mark.slow
def test_the_asymptotic_formula_errs_linearly_in_lambda():
    """(docs/theory.md#small-lambda-limit.)"""
    gradient_path = gradient_flow(DEFAULT, W_0, W_0, math.inf, tol=1e-20)
    errors = []
    for lam in [0.01 / 2**k for k in range(8)]:
        path = momentum_flow(DEFAULT, W_0, W_0, lam, math.inf, tol=1e-20)
        exponents = [
            -torch.log(delta / path.balancedness[0])
            for delta in (
                limit_bias(path).balancedness,
                small_lambda_balancedness(gradient_path, lam),
            )
        ]
        errors.append(float((exponents[1] / exponents[0] - 1).abs().max()))
    assert errors[-1] < 1e-4
    # halves, up to a correction linear in lambda itself
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2] * 7, rel=0.02)


def test_the_formula_wants_a_gradient_flow():
    path = momentum_flow(DEFAULT, W_0, W_0, 1.0, 1.0)
    with pytest.raises(InputError, match="must be 0"):
        small_lambda_balancedness(path, 0.1)

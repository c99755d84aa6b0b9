"""The orders at which momentum gradient descent follows its two flows."""

from __future__ import annotations

import math

import pytest
import torch

from dln_momentum import InputError, Momentum, momentum_flow, sparse
from dln_momentum.flows import discretisation_orders
from dln_momentum.flows.discretisation import _iterates
from tests.flow_oracles import uniform_start

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)


@pytest.fixture(scope="module")
def measured():
    return discretisation_orders(DEFAULT, W_0, W_0, 0.2, 20.0, [0.04, 0.02, 0.01, 0.005])


@pytest.mark.slow
def test_first_order_against_the_posters_lambda(measured):
    assert measured.order == pytest.approx(1.0, abs=0.1)
    assert measured.errors == tuple(sorted(measured.errors, reverse=True))


@pytest.mark.slow
def test_second_order_against_lambda_ks(measured):
    assert measured.order_ks == pytest.approx(2.0, abs=0.1)
    assert max(k / e for k, e in zip(measured.errors_ks, measured.errors, strict=True)) < 0.1


@pytest.mark.slow
def test_lambda_ks_is_lambda_less_half_a_step(measured):
    for eps, lam_ks in zip(measured.eps, measured.lam_ks, strict=True):
        assert lam_ks == pytest.approx(0.2 - eps / 2)


def test_without_the_half_step_shift_the_order_is_one():
    errors = []
    for eps in (0.02, 0.01):
        momentum = Momentum.from_pair(lam=0.2, eps=eps)
        iterates = _iterates(DEFAULT, (W_0, W_0), momentum, round(5 / eps))
        times = eps * torch.arange(1, len(iterates) + 1, dtype=torch.float64)
        path = momentum_flow(DEFAULT, W_0, W_0, momentum.lam_ks, float(times[-1]), times=times)
        errors.append(float((path.w_plus[1:] - iterates[:, 0]).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("eps", [[0.01], [0.01, 0.01], [0.01, 0.3], [0.0, 0.1], [-0.1, 0.1]])
def test_refuses(eps: list[float]):
    with pytest.raises(InputError, match="eps"):
        discretisation_orders(DEFAULT, W_0, W_0, 0.2, 1.0, eps)

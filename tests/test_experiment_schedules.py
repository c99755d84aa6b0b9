"""The rules by which schedules and Nesterov's method are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from dln_momentum import Momentum
from experiments import nesterov, schedules_compared
from experiments.claim import configured

NAN = float("nan")


@pytest.mark.parametrize("beta", [0.0, 0.4, 0.9])
def test_nesterovs_label_is_that_of_its_path_sums_at_leading_order(beta: float) -> None:
    """One coordinate under a constant gradient h: S over int h^2 dt as gamma -> 0.

    (docs/theory.md#nesterov-label.)
    """
    gamma, h = 1e-4, 0.05
    x, before, total, steps = 1.0, 1.0, 0.0, 4000
    p = 1 / (1 - beta)

    def r(a: float) -> float:
        return (a - 1) - np.log(a)

    for _ in range(steps):
        z = x + beta * (x - before)
        after = z * (1 - gamma * h)
        total += p * (r(after / z) + r(z / x)) + (p - 1) * r(x / after)
        before, x = x, after
    eps = gamma / (1 - beta)
    # the start from rest takes some 1/(1-beta) steps of 4000; the next order is that of eps h
    assert total / (steps * eps * h**2) == pytest.approx(nesterov.label(gamma, beta), rel=1e-2)


def test_the_heavy_ball_of_a_label_has_its_eps_and_lambda_ks() -> None:
    rule = Momentum(*nesterov.heavy_ball_of(0.003, 0.8))
    assert rule.eps == pytest.approx(0.015, rel=1e-13)
    assert rule.lam_ks == pytest.approx(nesterov.label(0.003, 0.8), rel=1e-12)
    # without momentum the two methods are one
    assert nesterov.heavy_ball_of(0.003, 0.0) == pytest.approx((0.003, 0.0), abs=1e-15)


def test_orders_are_exponents_and_unknown_where_a_value_is() -> None:
    x = np.array([0.1, 0.2, 0.4])
    values = xr.DataArray(
        np.stack([3 * x, x**2, np.array([0.1, NAN, 0.4])]),
        dims=("data_seed", "lam"),
        coords={"lam": x},
    )
    found = nesterov.orders(values, "lam").to_numpy()
    assert found[:2] == pytest.approx([1, 2], abs=1e-12)
    assert np.isnan(found[2])


def ends(excess: list[list[float]], part: list[list[float]]) -> xr.Dataset:
    """Excesses of schedules (rows) on data sets (columns), and by a part of the potential."""
    dims = ("schedule", "data_seed")
    return xr.Dataset({"excess": (dims, np.array(excess)), "part": (dims, np.array(part))})


@pytest.mark.parametrize(
    ("part", "share"),
    [
        # the ends' own excesses
        ([[1.0, 2.0], [0.1, 0.2]], 1.0),
        # the mean of each data set's logarithms: it tells no schedule from another
        ([[0.1**0.5, 0.4**0.5 * 0.1**0.5 * 10**0.5], [0.1**0.5, 0.4**0.5]], 0.0),
    ],
)
def test_what_a_part_of_the_potential_explains(part, share) -> None:
    results = ends([[1.0, 2.0], [0.1, 0.2]], part)
    found = float(schedules_compared.explained(results, "part"))
    assert found == pytest.approx(share, abs=1e-12)


def test_an_end_that_is_no_interpolator_is_not_the_sparsest() -> None:
    results = ends([[NAN, 2.0], [0.1, 3.0]], [[1.0, 1.0], [1.0, 1.0]])
    assert schedules_compared.sparsest(results).to_numpy().tolist() == [0.5, 0.5]


def test_lambda_at_constant_gamma_goes_by_its_factor() -> None:
    config = configured("schedules_compared")
    gamma, beta = torch.tensor([0.01, 0.02]).double(), torch.tensor([0.9, 0.8]).double()
    schedule = schedules_compared.schedule_of("lambda_up", gamma, beta, config)
    last = round(0.1 * config.steps) + 1
    for k, factor in ((1, 1.0), (last, 30.0), (last + 500, 30.0)):
        g, b = (rate[0] for rate in schedule.rates(gamma, beta, k, 1))
        assert torch.equal(g, gamma)
        assert torch.allclose(g / (1 - b) ** 2, factor * gamma / (1 - beta) ** 2, rtol=1e-12)

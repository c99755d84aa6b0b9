"""The rules by which experiments come to a verdict, on numbers whose verdict is plain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dln_momentum import Momentum
from experiments import (
    acceleration_rule,
    perturbed_initialisation,
    published_settings,
    regimes,
    sparser_than_gradient_flow,
)
from experiments.claim import configured
from experiments.mgf_implicit_bias import verdict_of_theorem
from experiments.negligible import reach


def costs(*rows: tuple[float, ...]) -> xr.DataArray:
    """What leaving out theta~_0 costs, a row for each alpha with a number for each lambda."""
    values = np.array(rows)[:, :, None] * np.ones(5)
    coords = {"alpha": [0.1, 0.01][: len(rows)], "lam": [0.1, 1.0, 10.0]}
    return xr.DataArray(values, dims=("alpha", "lam", "data_seed"), coords=coords)


NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        ((0, 0, 0), 10.0),
        ((0, 0, 1), 1.0),
        ((0, 1, 0), 0.1),
        ((1, 0, 0), 0.0),
        # a cell that is not known is no evidence
        ((0, NAN, 0), 0.1),
        ((NAN, NAN, NAN), 0.0),
    ],
)
def test_how_far_a_perturbed_start_is_negligible(row, reached) -> None:
    assert float(reach(costs(row), 0.01).squeeze()) == reached


def test_one_data_set_in_four_may_be_above_the_bound() -> None:
    cost = costs((0, 0, 0))
    cost[0, 1, 0] = 1.0
    assert float(reach(cost, 0.01).squeeze()) == 10.0
    cost[0, 1, 1] = 1.0
    assert float(reach(cost, 0.01).squeeze()) == 0.1


def test_the_theorem_has_a_verdict_of_its_own() -> None:
    lams = [0.1, 1.0, 10.0]
    for row, theorem, verdict in (
        ((0, 0, 0), True, "confirmed"),
        ((0, 0, 1), True, "confirmed in part"),
        ((1, 1, 1), True, "confirmed in part"),
        ((0, 0, 0), False, "not seen"),
    ):
        reached = reach(costs(row, (0, 0, 0)), 0.01)
        assert verdict_of_theorem(theorem=theorem, reached=reached, lams=lams) == verdict


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ((True, True, True), 4.0),
        ((True, True, False), 2.0),
        # the first is what the others are compared with: it says nothing
        ((True, False, True), 1.0),
        ((False, True, True), 4.0),
    ],
)
def test_a_speed_up_is_over_the_slowest_run(holds, expected) -> None:
    rhos = [0.5, 1.0, 2.0]
    array = xr.DataArray(list(holds), dims="rho", coords={"rho": rhos})
    assert float(acceleration_rule.speed_up(array)) == expected


@pytest.mark.slow
def test_a_wrong_acceleration_rule_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma -> rho gamma in place of rho^2 gamma changes lambda; the right rule is seen."""
    config = configured("acceleration_rule", "scale=tiny", "num_workers=1")
    assert acceleration_rule.study(config).verdict != "not seen"

    def wrong(rule: Momentum, rho: float) -> Momentum:
        return Momentum.from_pair(gamma=rho * rule.gamma, beta=1 - rho * (1 - rule.beta))

    monkeypatch.setattr(Momentum, "accelerated", wrong)
    found = acceleration_rule.study(config)
    assert found.verdict == "not seen"
    assert "a speed-up (over beta = 0.9; 1 is none) of 1, 1, 1 and 1" in found.finding


@pytest.mark.slow
def test_a_flow_that_starts_at_rest_anyway_has_no_first_order_term(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(docs/theory.md#order-of-theta.)"""
    config = configured("perturbed_initialisation", "scale=tiny", "num_workers=1")
    right = perturbed_initialisation.study(config)
    assert right.verdict == "confirmed"
    # the next terms are smaller by a factor of the order of lambda times a rate of order 1
    assert float(right.results["formula_error"].isel(lam=0).max()) < 3 * config.lams[0]
    flows = perturbed_initialisation.momentum_flows

    def at_rest(*arguments, dw_plus_0, dw_minus_0, **keys):
        return flows(*arguments, **keys)

    monkeypatch.setattr(perturbed_initialisation, "momentum_flows", at_rest)
    found = perturbed_initialisation.study(config)
    assert found.verdict == "confirmed in part"
    order = found.results["order"].median("data_seed")
    # the orders of the two starts are 1 apart, and these are fits over half a decade
    assert np.allclose(order, 2, atol=0.1)


def lower(gd: list[float], heavy: list[float]) -> xr.DataArray:
    """Errors of one start, with a step size and a number for each data set."""
    values = np.array([gd, heavy])[None, :, None, None]
    dims = ("gamma", "rival", "xi", "phi", "data_seed")
    coords = {"gamma": [0.1], "rival": ["GD", "heavy ball"], "xi": [1.0], "phi": [0.03]}
    return xr.DataArray(values, dims=dims, coords=coords)


def test_an_advantage_at_equal_steps_is_told_from_one_at_the_limit() -> None:
    """Shares are over the data sets on which both methods converged."""
    config = configured("published_settings", "majority=0.5")
    limit = lower([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, NAN, 0.5])
    early = lower([3.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0]).expand_dims(compared_step=[10])
    results = xr.Dataset(
        {
            "start_error": limit,
            "start_error_at_equal_steps": early,
            "start_error_at_equal_time": early + lower([0, 0, 0, 0], [4.0, 4.0, 4.0, 4.0]),
        }
    )
    shares = published_settings.advantages(results, config)
    assert float(shares["equal steps"].squeeze()) == 1.0
    assert float(shares["equal time"].squeeze()) == 0.0
    assert float(shares["limit"].squeeze()) == pytest.approx(1 / 3)
    only = published_settings._at_equal_steps_only(shares, 0.5)
    assert only == "(1, 0.03)"
    assert published_settings._at_equal_steps_only(shares, 0.2) == "none"


def test_a_limit_is_sparser_only_if_both_step_sizes_say_so() -> None:
    """(docs/theory.md#sparsity.)"""
    excess = np.array([[0.5, 0.5, 0.5, 2.0], [0.5, 0.5, NAN, 0.5]])[:, None, None, None]
    results = xr.Dataset({"excess": (("eps", "setting", "design", "lam", "data_seed"), excess)})
    # three of four at eps, and three of four at eps/2, one of them not known
    assert float(sparser_than_gradient_flow.sparser_share(results).squeeze()) == 0.75


def regime(time: list[float], rise: list[float]) -> dict:
    typical = xr.Dataset(
        {
            "distance": ("lam", [0.001, 0.1, 1.0, 1.0]),
            "time": ("lam", time),
            "steps": ("lam", [t / lam**0.5 for t, lam in zip(time, LAMS, strict=True)]),
            "rise": ("lam", rise),
        }
    )
    return regimes._regimes(typical, np.array(LAMS), configured("regimes"))


LAMS = [0.01, 1.0, 100.0, 1000.0]


def test_regimes_are_seen_in_numbers_that_have_them() -> None:
    found = regime([10.0, 20.0, 1e3, 1e4], [0.0, 0.1, 2.0, 5.0])
    assert all(found["seen"].values())
    assert found["exponent_of_time_in_lambda"] == pytest.approx(1.0, abs=1e-12)
    assert found["lambda_of_fewest_steps"] == 1.0


def test_runs_that_never_converge_are_no_evidence() -> None:
    found = regime([10.0, 20.0, 1e3, NAN], [0.0, 0.1, 2.0, 5.0])
    assert not found["seen"]["time grows like lambda"]
    assert not any(
        regime([NAN] * 4, [0.0, 0.1, 2.0, 5.0])["seen"][key]
        for key in ("time grows like lambda", "fewest steps in between")
    )

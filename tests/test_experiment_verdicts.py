"""The rules by which experiments come to a verdict, on numbers whose verdict is plain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from omegaconf import DictConfig

from experiments import mgf_implicit_bias, regimes, smgd_implicit_bias
from experiments.claim import configured

SIZES = (1, 4, 8)


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return configured("smgd_implicit_bias", "lams=[0.1,1,10]", "negligible=0.01")


def cost(*rows: tuple[float, ...]) -> tuple[xr.DataArray, xr.DataArray]:
    """What leaving out theta~_0 costs, a row for each batch size with a number for each lambda."""
    values = np.array(rows)[None, :, :, None] * np.ones((1, 1, 1, 5))
    dims = ("setting", "sampling", "lam", "data_seed")
    data = xr.DataArray(values, dims=dims, coords={"lam": [0.1, 1.0, 10.0]})
    return data, xr.DataArray(np.array([SIZES]), dims=("setting", "sampling"))


@pytest.mark.parametrize(
    ("rows", "reach"),
    [
        (((0, 0, 0), (0, 0, 0), (0, 0, 0)), (10.0, 1)),
        (((0, 0, 1), (0, 0, 1), (0, 0, 1)), (1.0, 1)),
        # one row a batch is too few at lambda = 1, and then is left out below it too
        (((0, 1, 1), (0, 0, 1), (0, 0, 1)), (1.0, 4)),
        (((1, 1, 1), (1, 1, 1), (0, 0, 1)), (1.0, 8)),
        (((0, 0, 0), (0, 0, 0), (1, 0, 0)), (0.0, 1)),
    ],
)
def test_how_far_a_perturbed_start_is_negligible(config, rows, reach) -> None:
    assert smgd_implicit_bias._reach(config, *cost(*rows)) == reach


def test_the_theorem_has_a_verdict_of_its_own(config) -> None:
    stochastic = smgd_implicit_bias._verdict
    assert stochastic(config, 10.0, 1, 1e-12) == "confirmed"
    assert stochastic(config, 0.0, 1, 1e-12).startswith("confirmed where the claim is the theorem")
    assert "lambda <= 1 and a batch has at least 4 rows" in stochastic(config, 1.0, 4, 1e-12)
    flow = mgf_implicit_bias._verdict
    assert flow(config, False, 3) == "not seen"
    assert flow(config, True, 3) == "confirmed"
    assert flow(config, True, 2).startswith("confirmed where lambda <= 1; above, the theorem")
    assert flow(config, True, 0).startswith("confirmed where the claim is the theorem")


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
    nan = float("nan")
    found = regime([10.0, 20.0, 1e3, nan], [0.0, 0.1, 2.0, 5.0])
    assert not found["seen"]["time grows like lambda"]
    assert not any(
        regime([nan] * 4, [0.0, 0.1, 2.0, 5.0])["seen"][key]
        for key in ("time grows like lambda", "fewest steps in between")
    )

"""The rules on decay that ends, on depth and on directions of max margin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import xarray as xr

from dln_momentum import sparse
from experiments import depth, ending_decay, max_margin
from experiments.claim import configured
from experiments.common import engine_over
from experiments.limits import limits

NAN = math.nan


def decayed(**changes: Sequence[float]) -> xr.Dataset:
    """One design, lambda = 1 and one duration on two data sets; without decay the excess is 1."""
    values = {
        "explained": (1.0, 1.0),
        "excess": (0.1, 0.1),
        "excess_direct": (0.1, 0.1),
        "excess_without": (1.0, 1.0),
    }
    dims = ("design", "lam", "duration", "integral", "data_seed")
    data = {
        key: (dims, np.reshape(changes.get(key, value), (1, 1, 1, 1, 2)))
        for key, value in values.items()
    }
    omega = xr.DataArray(np.reshape(changes.get("omega", [0.1]), (1, 1)), dims=dims[2:4])
    return xr.Dataset(data | {"omega": omega}, coords={"lam": [1.0]})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, None),
        # a tenth of 2 I is the most that may be missing, on the median data set
        ({"explained": (0.8, 0.8)}, "explained"),
        ({"excess": (0.2, 0.2)}, "as_sparse"),
        # sparser on one of two data sets
        ({"excess": (0.1, 2.0), "excess_direct": (0.1, 2.0)}, "sparser_than_without"),
        ({"omega": [1.0]}, "slow"),
    ],
)
def test_what_counts_as_explained_and_as_gained(changes: dict, wrong: str | None) -> None:
    parts = ending_decay.parts_of(decayed(**changes), configured("ending_decay"))
    for key in ("known", "explained", "as_sparse", "sparser_than_without", "slow"):
        failing = {wrong} | (
            {"sparser_than_any_lambda"} if wrong == "sparser_than_without" else set()
        )
        assert bool(parts[key].squeeze()) is (key not in failing), key


def test_a_cell_of_runs_that_did_not_converge_is_not_judged() -> None:
    parts = ending_decay.parts_of(
        decayed(excess=(NAN, NAN), explained=(NAN, NAN)), configured("ending_decay")
    )
    assert not bool(parts["known"].any() | parts["explained"].any() | parts["as_sparse"].any())


@pytest.mark.slow
def test_a_method_without_decay_has_the_limit_of_the_plain_one() -> None:
    """Sums with the weights of the horizon and the missing boundary term, against section 5's."""
    from dln_momentum.method import Method

    problem = sparse(8, 12, 2, seed=1)
    ends = [
        engine_over([problem], 0.02, 0.8, 0.1, method=method, tol=1e-4).run(20_000)
        for method in (None, Method(weight_decay=1e-30))
    ]
    delta, theta = ending_decay.limit(ends[1], problem)
    # the same run by two kernels: rounding over some 1e3 steps
    torch.testing.assert_close(theta, limits(ends[0], problem), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(delta, ends[0].limit_balancedness, rtol=1e-9, atol=0)


def deep(excess: Sequence[Sequence[float]], moved: float = 0.1) -> xr.Dataset:
    """Depths 2 and 3, lambda 0 and 1: rows (2, 0), (2, 1), (3, 0), (3, 1) over data sets."""
    values = np.reshape(excess, (2, 2, 1, -1)).transpose(0, 2, 1, 3)
    dims = ("depth", "eps", "lam", "data_seed")
    return xr.Dataset(
        {
            "excess": (dims, values),
            "moved": (("depth", "halving", *dims[2:]), np.full_like(values, moved)),
        },
        coords={"depth": [2.0, 3.0], "lam": [0.0, 1.0]},
    )


def test_what_counts_as_labelled_and_as_sparser_at_a_depth() -> None:
    config = configured("depth")
    results = deep([[1.0, 1.0], [0.5, 0.5], [0.4, 2.0], [0.5, NAN]])
    cells = depth.cells_of(results, config)
    assert cells["sparser"].squeeze().values.tolist() == [True, False]
    assert bool(cells["label"].all())
    assert not bool(depth.cells_of(deep([[1.0]] * 4, moved=0.3), config)["label"].any())
    # sparser at D = 3 on one of two data sets
    assert depth.deeper_is_sparser(results, 0.9) == [False]
    assert depth.deeper_is_sparser(results, 0.5) == [True]
    nothing = deep([[1.0, 1.0], [NAN, NAN], [1.0, 1.0], [1.0, 1.0]])
    assert depth.cells_of(nothing, config)["known"].squeeze().values.tolist() == [False, True]


def test_gradient_flows_limit_hardly_depends_on_a_depth_near_2() -> None:
    """The potentials at D = 2 and D -> 2 are one: so are their minimisers, to first order."""
    problem = sparse(6, 9, 2, seed=3)
    batch = problem.replace(X=problem.X[None], y=problem.y[None])
    config = configured("depth")
    two, near, nearer = (
        depth.flow_limit(batch, D, config)["theta"][0] for D in (2, 2 + 1e-3, 2 + 1e-4)
    )
    assert torch.dist(near, two) < 1e-2
    # first order in D - 2, up to its second-order term
    assert torch.dist(near, two) / torch.dist(nearer, two) == pytest.approx(10, rel=0.05)
    assert torch.allclose(problem.X @ near, problem.y, atol=1e-9)


def followed(deficit: np.ndarray, log_time: np.ndarray, growing: int) -> xr.Dataset:
    """One loss and alpha, lambda 0 and 1 (rows), one data set, records last."""
    dims = ("loss", "alpha", "lam", "record")
    grows = np.arange(log_time.shape[1]) >= log_time.shape[1] - growing
    return xr.Dataset(
        {
            "deficit_l1": ((*dims, "data_seed"), deficit[None, None, :, :, None]),
            "log_time": (dims, log_time[None, None]),
            "growing": (dims, np.broadcast_to(grows, (1, 1, *log_time.shape)).astype(float)),
        },
        coords={"loss": ["exponential"], "alpha": [0.1], "lam": [0.0, 1.0]},
    )


def test_exponents_and_deficits_at_the_same_time() -> None:
    time = np.stack([np.linspace(2, 100, 40), np.linspace(4, 90, 40)])
    results = followed(3 * time**-0.5, time, growing=30)
    # a power law is fitted exactly, but for rounding
    assert max_margin.exponents(results).values.ravel() == pytest.approx([0.5, 0.5], abs=1e-12)
    ratio = max_margin.at_same_time(results).values.ravel()
    # linear interpolation between records 2.5 apart, of a curve: (2.5/90)^2/8 times a few
    assert ratio == pytest.approx([1, 1], abs=1e-3)
    double = followed(3 * time**-0.5 * np.array([[1.0], [2.0]]), time, growing=30)
    assert max_margin.at_same_time(double).values.ravel() == pytest.approx([1, 2], abs=2e-3)


def test_records_are_spaced_by_the_logarithm_of_ln_t_and_end_with_each_part() -> None:
    log_time = np.log(np.cumsum(np.exp(0.05 * np.maximum(np.arange(1, 3001) - 1000, 0))))
    steps = max_margin.record_steps(log_time, 1000, 6)
    assert len(steps) == 12
    assert bool((np.diff(steps) > 0).all())
    assert steps[5] == 1000
    assert steps[-1] == 3000
    ratios = log_time[steps[7:] - 1] / log_time[steps[6:-1] - 1]
    # rounded to whole steps, of 0.05 in ln t
    assert ratios == pytest.approx([ratios[0]] * 5, rel=0.02)

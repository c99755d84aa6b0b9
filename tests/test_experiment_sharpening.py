"""The Hessian of the network and the rules on the edge of stability and on the sparser region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from dln_momentum import sparse
from experiments import progressive_sharpening, sparser_region
from experiments.claim import configured
from experiments.limits import follow_flows


@pytest.mark.slow
def test_the_flow_limit_is_where_a_slow_run_ends() -> None:
    problem = sparse(6, 9, 2, seed=3)
    alpha, nothing = torch.tensor([0.3], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    end = follow_flows([problem], nothing, alpha, resolution=0.02, max_steps=300_000, tol=1e-18)
    w = progressive_sharpening._flow_limit(problem, 0.3)
    # gradient descent leaves gradient flow's limit by the order of its step
    assert torch.allclose(end.w[:, 0], w, atol=0.02)
    assert torch.allclose(w[0] * w[1], torch.full((9,), 0.18, dtype=torch.float64), atol=1e-12)


def converged(ends: list[float], betas: tuple[float, ...] = (0.5,)) -> xr.Dataset:
    """A study with f = 0.5 and 2 whose runs above the edge end at these sharpnesses."""
    sets = len(ends)
    end = np.stack([np.full(sets, 0.5), np.array(ends)])[None, None]
    dims = ("alpha", "beta", "ratio", "data_seed")
    return xr.Dataset(
        {
            "end": (dims, end),
            "diverged": (dims, np.where(np.isnan(end), 1.0, 0.0)),
            "neither": (dims, np.zeros_like(end)),
            "sharpness_start": (("alpha", "data_seed"), np.full((1, sets), 1.0)),
            "sharpness_flow": (("alpha", "data_seed"), np.full((1, sets), 2.0)),
        },
        coords={"alpha": [0.3], "beta": list(betas), "ratio": [0.5, 2.0]},
    )


NAN = float("nan")


@pytest.mark.parametrize(
    ("ends", "bounded", "stays"),
    [
        ([0.99, 0.98, 1.0], True, True),
        # beyond the threshold: the formula would be wrong
        ([0.99, 1.2, 1.0], False, True),
        # converged far below it, or diverged: not at the edge
        ([0.5, 0.5, 0.99], True, False),
        ([NAN, NAN, 0.99], True, False),
    ],
)
def test_the_parts_of_the_claim_on_sharpness(ends, bounded, stays) -> None:
    config = configured("progressive_sharpening")
    parts = progressive_sharpening.parts_of(converged(ends), config)
    assert bool(parts["bounded"].squeeze()) is bounded
    assert bool(parts["stays"].squeeze()) is stays
    assert bool(parts["rises"].squeeze())
    assert bool(parts["no_early_divergence"].squeeze())


def cells(excess: list[list[float]], off: list[float], crossed: list[float]) -> xr.Dataset:
    """One design, one alpha, a lambda for each row of excesses over data sets."""
    values = np.array(excess)[None, None]
    one = np.ones_like(values)
    dims = ("design", "alpha", "lam", "data_seed")
    return xr.Dataset(
        {
            "excess": (dims, values),
            "excess_without_init": (dims, values),
            "excess_of_shape": (dims, values),
            "excess_of_size": (dims, 2 * one),
            "gain_on": (dims, one),
            "gain_off": (dims, one * np.array(off)[:, None]),
            "signs_changed": (dims, one * np.array(crossed)[:, None]),
        },
        coords={"design": ["a"], "alpha": [0.1], "lam": range(len(excess))},
    )


def test_what_tells_sparser_cells_is_counted_on_both_sides() -> None:
    config = configured("sparser_region")
    results = cells([[2.0, 2.0], [0.5, 0.5], [2.0, 2.0]], [0.5, 3.0, 2.0], [0.0, 1.0, 1.0])
    told = sparser_region.agreement(results, config)
    both = {name: tuple(values.values()) for name, values in told.items()}
    # of the two other cells one has larger gains off the support, and sign changes
    assert both["gains larger off the support"] == (1.0, 0.5)
    assert both["sign changes"] == (1.0, 0.5)
    assert both["shape of Delta_inf alone is sparser"] == (1.0, 1.0)
    assert both["size of Delta_inf alone is sparser"] == (0.0, 1.0)
    # ranks 1, 3, 2 against 2.5, 1, 2.5
    assert sparser_region._ranks(results)["a"] == pytest.approx(-math.sqrt(3) / 2)


def test_a_run_that_did_not_converge_is_not_sparser() -> None:
    results = cells([[0.5, NAN]], [2.0], [1.0])
    assert float(sparser_region.region(results, 0.9).sum()) == 0
    assert float(sparser_region.region(results, 0.5).sum()) == 1

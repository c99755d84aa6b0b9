"""Flows at extreme lambda and alpha: followed, or refused before anything is computed."""

from __future__ import annotations

import math

import pytest
import torch

import dln_momentum as dln
from dln_momentum import momentum_flow, momentum_flows
from dln_momentum.flows import FlowOptions
from dln_momentum.flows.feasibility import length_errors, loss_resolution

PROBLEM = dln.sparse(n=5, d=8, s=2, seed=0)


def start(alpha: float) -> torch.Tensor:
    return torch.full((8,), math.sqrt(2) * alpha, dtype=torch.float64)


@pytest.mark.parametrize("lam", [1e6, 1e9, 1e12])
def test_the_first_oscillations_at_large_lambda(lam: float) -> None:
    """One flow and many, by different methods, agree at t = 3 sqrt(lambda)."""
    w, time = start(0.1), 3 * math.sqrt(lam)
    many = momentum_flows(PROBLEM, w, w, torch.tensor([lam], dtype=torch.float64), time)
    one = momentum_flow(PROBLEM, w, w, lam, time, times=torch.tensor([time], dtype=torch.float64))
    assert [many.status[0].value, one.status.value] == ["time_reached"] * 2
    # rtol 1e-9 a macro-step, some ten of them, which three radians of the motion amplify tenfold
    torch.testing.assert_close(many.w[:, -1, 0], one.w[:, -1], rtol=0, atol=1e-7)
    # a few hundred steps where rounding of 1 - beta had made it 1e6
    assert int(many.steps[0]) < 50_000


@pytest.mark.parametrize(("alpha", "lam"), [(100.0, 1e-3), (1000.0, 1e-6), (100.0, 0.0)])
def test_large_starts_end(alpha: float, lam: float) -> None:
    w = start(alpha)
    tol = 4 * float(loss_resolution(PROBLEM, torch.stack([w, w])))
    path = momentum_flow(PROBLEM, w, w, lam, math.inf, tol=tol, options=FlowOptions(max_steps=2000))
    assert path.converged
    # the energy is dissipated: to the rounding of the loss, of the root of tol relative to E_0
    spent = path.energy[0] - path.energy - path.dissipated
    assert float(spent.abs().max() / path.energy[0]) < 100 * math.sqrt(tol)


def test_a_tolerance_below_rounding_is_refused() -> None:
    large = dln.uniform(alpha=100.0)
    for lam in (0.0, 1.0, [0.0, 1.0]):
        with pytest.raises(dln.InputError, match=r"tol = 1e-24 must be at least"):
            dln.flow(PROBLEM, large, lam=lam)


def test_oscillations_beyond_the_steps_are_refused() -> None:
    small = dln.uniform(alpha=0.1)
    with pytest.raises(
        dln.InputError, match=r"lam = 1e\+09 takes about .* allowed is a time up to"
    ):
        dln.flow(PROBLEM, small, lam=1e9)
    with pytest.raises(dln.InputError, match=r"lam = 1e\+09 takes about"):
        dln.flow(PROBLEM, small, lam=[0.0, 1.0, 1e9])
    # what is stated as allowed is let through
    w = torch.stack([start(0.1)] * 2)
    lam = torch.tensor(1e9, dtype=torch.float64)
    (line,) = length_errors(PROBLEM, w, lam, math.inf, 1e-24)
    allowed = float(line.split("up to ")[1].split(",")[0])
    assert not [*length_errors(PROBLEM, w, lam, 0.9 * allowed, 1e-24)]


def test_a_tiny_start_is_followed_in_relative_terms() -> None:
    """While w is tiny its equation is linear: w_+-(t) is alpha times one function of t."""
    small, tiny = (
        momentum_flow(PROBLEM, start(alpha), start(alpha), 1.0, 20.0) for alpha in (1e-30, 1e-60)
    )
    ratio = tiny.w[:, -1] / small.w[:, -1] * 1e30
    # a relative error of 1e-13 a step, a hundred steps
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-11, atol=0)

"""The systems of Newton's method on the dual, against dense solutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dln_momentum import RowSpace
from dln_momentum.row_space import weighted_solution
from dln_momentum.theory import newton_systems
from dln_momentum.theory.newton_systems import NewtonSystems

RUNS, N, D = 12, 6, 9


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def energy_error(basis: Tensor, weights: Tensor, x: Tensor, rhs: Tensor) -> Tensor:
    """The error of x in the norm of W, relative to the solution, [R]."""
    exact, energy = weighted_solution(basis, weights, rhs)
    return ((x - exact).square() * weights).sum(-1).sqrt() / energy.sqrt()


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("decades", [0.1, 2.0, 6.0, 60.0])
def test_every_spread_of_weights_is_solved_to_the_accuracy(stacked: bool, decades: float) -> None:
    basis = RowSpace.of(gaussian(RUNS, N, D) if stacked else gaussian(N, D)).basis
    weights, rhs = 10 ** (decades * gaussian(RUNS, D, seed=1) / 4), gaussian(RUNS, N, seed=2)
    systems, accuracy = NewtonSystems(basis, weights), weights.new_full((RUNS,), 1e-6)
    runs = torch.arange(RUNS)
    # a second call has the factors of the first, and weights that differ
    for factor in (1.0, 1 + gaussian(RUNS, D, seed=3).abs()):
        x, decrement = systems.solve(runs, weights * factor, rhs, accuracy)
        # a factor of weights within SPREAD estimates the error to the square root of it
        assert (energy_error(basis, weights * factor, x, rhs) <= 1e-6 * 1e3**0.5).all()
        energy = (x.square() * weights * factor).sum(-1)
        torch.testing.assert_close(decrement, energy, rtol=1e-4, atol=0)


def test_runs_whose_weights_are_near_share_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    factorised = []
    factors = newton_systems._factors
    monkeypatch.setattr(
        newton_systems, "_factors", lambda V, W: factorised.append(len(W)) or factors(V, W)
    )
    basis = RowSpace.of(gaussian(N, D)).basis
    one = 10 ** gaussian(1, D, seed=1)
    weights, rhs = one * (1 + 0.01 * gaussian(RUNS, D, seed=3)), gaussian(RUNS, N, seed=2)
    runs, accuracy = torch.arange(RUNS), weights.new_full((RUNS,), 1e-3)
    NewtonSystems(basis, weights).solve(runs, weights, rhs, accuracy)
    assert factorised == [1]
    # another's factor does not serve a run beyond SPREAD: it gets its own
    weights[3, 0] *= 1e5
    systems = NewtonSystems(basis, weights)
    x, _ = systems.solve(runs, weights, rhs, accuracy)
    assert factorised == [1, 1, 1]
    assert (energy_error(basis, weights, x, rhs) <= 1e-3 * 1e3**0.5).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_run_that_fails_leaves_its_neighbours(bad: float) -> None:
    basis = RowSpace.of(gaussian(N, D)).basis
    weights, rhs = 10 ** gaussian(RUNS, D, seed=1), gaussian(RUNS, N, seed=2)
    rhs[RUNS // 2] = bad  # the run whose factor the others are offered
    rhs[0] = 0.0
    accuracy = weights.new_full((RUNS,), 1e-6)
    x, _ = NewtonSystems(basis, weights).solve(torch.arange(RUNS), weights, rhs, accuracy)
    good = torch.arange(RUNS) != RUNS // 2
    assert not x[0].any()
    good[0] = False
    found = energy_error(basis, weights[good], x[good], rhs[good])
    assert (found <= 1e-6 * 1e3**0.5).all()

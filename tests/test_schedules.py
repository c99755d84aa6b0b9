"""Schedules and methods: each formula, windows, runs with numbers of their own, and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dln_momentum import InputError
from dln_momentum.method import Method
from dln_momentum.schedules import (
    SCHEDULES,
    Acceleration,
    AnnealedLambda,
    Arrays,
    Constant,
    Cosine,
    InverseSqrt,
    NesterovMomentum,
    Schedule,
    StepDecay,
    Warmup,
    make_schedule,
)
from tests.helpers import column

GAMMA, BETA = column(0.01, 0.02), column(0.9, 0.8)
EACH = [
    Constant(),
    Warmup(column(5, 8)),
    Cosine(column(7, 9), final=0.1),
    StepDecay(3, column(0.5, 0.25)),
    InverseSqrt(4),
    NesterovMomentum(),
    Acceleration(column(2, 3), 6),
    AnnealedLambda(lam_end=column(0.5, 0.2), steps=6),
    Arrays(gamma=torch.rand(5, 2, dtype=torch.float64), beta=[0.1, 0.5, 0.3]),
]


def by_formula(schedule: Schedule, run: int, k: int) -> tuple[float, float]:
    """gamma_k and beta_k of one run by the formula of its docstring, with Python's numbers."""
    gamma, beta = float(GAMMA[run]), float(BETA[run])
    eps, lam = gamma / (1 - beta), gamma / (1 - beta) ** 2
    match schedule:
        case Constant():
            return gamma, beta
        case Warmup():
            return gamma * min(1, k / (5, 8)[run]), beta
        case Cosine():
            angle = math.pi * min(1, (k - 1) / (7, 9)[run])
            return gamma * (0.1 + 0.9 * (1 + math.cos(angle)) / 2), beta
        case StepDecay():
            return gamma * (0.5, 0.25)[run] ** ((k - 1) // 3), beta
        case InverseSqrt():
            return gamma / math.sqrt(1 + (k - 1) / 4), beta
        case NesterovMomentum():
            return gamma, (k - 1) / (k + 2)
        case Acceleration():
            rho = (2, 3)[run] ** min(1, (k - 1) / 6)
            return rho**2 * gamma, 1 - rho * (1 - beta)
        case AnnealedLambda():
            lam_k = lam * ((0.5, 0.2)[run] / lam) ** min(1, (k - 1) / 6)
            return eps**2 / lam_k, 1 - eps / lam_k
        case Arrays():
            return float(schedule.gamma[min(k, 5) - 1, run]), (0.1, 0.5, 0.3)[min(k, 3) - 1]
    raise AssertionError(schedule)


@pytest.mark.parametrize("schedule", EACH, ids=lambda s: s.name)
def test_rates_follow_their_formula_in_any_window(schedule: Schedule) -> None:
    expected = torch.tensor(
        [[by_formula(schedule, run, k) for run in range(2)] for k in range(1, 13)],
        dtype=torch.float64,
    )
    for first, steps in ((1, 12), (4, 5), (12, 1)):
        found = torch.stack(schedule.rates(GAMMA, BETA, first, steps), -1)
        # a power and a few roundings
        torch.testing.assert_close(
            found, expected[first - 1 : first - 1 + steps], rtol=1e-14, atol=1e-15
        )
    second = schedule.of(torch.tensor([1])).rates(GAMMA[1:], BETA[1:], 1, 12)
    torch.testing.assert_close(torch.stack(second, -1), expected[:, 1:], rtol=1e-14, atol=1e-15)
    assert bool(
        (expected[..., 0].max(0).values <= schedule.largest_step(GAMMA, BETA) + 1e-15).all()
    )


def test_the_acceleration_rule_keeps_lambda_and_annealing_keeps_eps() -> None:
    gamma, beta = Acceleration(column(2, 3), 6).rates(GAMMA, BETA, 1, 12)
    own = (GAMMA / (1 - BETA) ** 2).expand(12, 2)
    torch.testing.assert_close(gamma / (1 - beta) ** 2, own, rtol=1e-13, atol=0)
    gamma, beta = AnnealedLambda(0.5, 6).rates(GAMMA, BETA, 1, 12)
    torch.testing.assert_close(
        gamma / (1 - beta), (GAMMA / (1 - BETA)).expand(12, 2), rtol=1e-13, atol=0
    )


def test_every_schedule_is_tried_here_and_has_an_identity() -> None:
    assert {schedule.name for schedule in EACH} == set(SCHEDULES)
    for schedule in EACH:
        again = make_schedule(schedule.name, **{k: getattr(schedule, k) for k in schedule.numbers})
        assert again == schedule
        assert hash(again) == hash(schedule)
    assert Warmup(5) != Warmup(6)
    assert Warmup(5) != InverseSqrt(5)


def test_numbers_of_a_grid_of_runs_are_laid_out_in_order() -> None:
    grid = Warmup(column(1, 2)).flat((3, 2))
    assert torch.equal(torch.as_tensor(grid.steps), column(1, 2, 1, 2, 1, 2))
    arrays = Arrays(gamma=torch.ones(4, 3, 1, dtype=torch.float64)).flat((3, 2))
    assert arrays.gamma.shape == (4, 6)
    method = Method(schedule=Warmup(column(1, 2)), weight_decay=0.1).flat((3, 2))
    assert method.runs == (6,)


def test_dampening_and_decay_follow_the_steps() -> None:
    method = Method(weight_decay=0.5, dampening=0.2, decay_until=2)
    rates = method.rates(column(0.1), column(0.9), 1, 3)
    torch.testing.assert_close(rates.step[:, 0], column(0.1, 0.08, 0.08), rtol=1e-15, atol=0)
    torch.testing.assert_close(rates.decay[:, 0], column(0.05, 0.04, 0), rtol=1e-15, atol=0)
    # decoupled decay is no part of what the dampening acts on
    decoupled = Method(weight_decay=0.5, decoupled=True, dampening=0.2)
    rates = decoupled.rates(column(0.1), column(0.9), 1, 3)
    torch.testing.assert_close(rates.decay[:, 0], column(0.05, 0.05, 0.05), rtol=1e-15, atol=0)


REFUSED = [
    (lambda: make_schedule("linear"), "schedule = 'linear' must be one of constant, warmup"),
    (lambda: make_schedule("warmup"), "schedule.steps is missing"),
    (lambda: make_schedule("warmup", step=3, steps=0), "schedule.step = 3: warmup takes steps"),
    (lambda: Warmup(0), "schedule.steps = 0 must be finite and >= 1"),
    (lambda: make_schedule("warmup", steps="fast"), "schedule.steps = 'fast' must be a number"),
    (lambda: Cosine(5, final=column(0.5, -0.5)), "schedule.final = -0.5 must be in [0, 1]"),
    (lambda: Arrays(beta=[0.5, 1.0]), "schedule.beta = 1 must be in [0, 1)"),
    (lambda: Arrays(gamma=0.5), "must be an array [K] or [K, R]"),
    (lambda: Method("adam"), "method.name = 'adam' must be one of heavy_ball, nesterov"),
    (lambda: Method(weight_decay=-1), "method.weight_decay = -1 must be finite and >= 0"),
    (lambda: Method(weight_decay=1, depth=3), "method.weight_decay = 1.0 must be 0 with depth > 2"),
    (lambda: Method(weight_decay=1, layer_ratio=2), "the layers would decay apart"),
    (lambda: Method(kappa=[1.0, 0.0]), "method.kappa has shape [2] and 1 entries"),
    (lambda: replace(Method(), decay_until=1.5), "method.decay_until = 1.5 must be an integer"),
]


@pytest.mark.parametrize(("build", "line"), REFUSED, ids=[line for _, line in REFUSED])
def test_refusals(build, line: str) -> None:
    with pytest.raises(InputError) as error:
        build()
    assert line in str(error.value)


def test_rates_that_leave_their_range_are_refused_for_the_runs_they_have() -> None:
    for method, line in (
        (Method(schedule=Acceleration(20, 5)), "schedule.rho = 20 must be in (0, 10]"),
        (Method(schedule=AnnealedLambda(0.05, 5)), "schedule.lam_end = 0.05 must be >= eps"),
        (Method(weight_decay=100, decoupled=True), "must be < 1 where the decay is decoupled"),
        (Method(dampening=column(0, 0, 0)), "method has numbers for runs [3]"),
    ):
        found = list(method.problems(GAMMA, BETA))
        assert len(found) == 1
        assert line in found[0]
    assert not list(Method(schedule=Acceleration(5, 5)).problems(GAMMA, BETA))

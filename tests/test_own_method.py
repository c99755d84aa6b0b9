"""Faults planted in the engine's general methods, and the statements of dln-verify that find them.

The certificates of the family hold for any step size, batch and schedule. What finds a wrong one is
the second program, `written_method`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dln_momentum import Engine, Momentum, sparse
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.family import Family
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.stored_family import StoredFamily
from dln_momentum.engine.torch_family import FamilySteps
from dln_momentum.method import Method, StepRates
from dln_momentum.schedules import (
    Acceleration,
    AnnealedLambda,
    Arrays,
    Cosine,
    InverseSqrt,
    NesterovMomentum,
    Schedule,
    StepDecay,
    Warmup,
)
from dln_momentum.verification import Measurements, Setting, Verdict
from dln_momentum.verification.statements import of_the_own_method

Patch = pytest.MonkeyPatch
PROBLEM = sparse(5, 8, 1, seed=0)
U, V = torch.linspace(0.3, 0.5, 8).double(), torch.linspace(0.1, 0.05, 8).double()
KAPPA = torch.linspace(0.5, 1.5, 8).double()
METHODS = {
    "warm-up": Method(schedule=Warmup(20)),
    "nesterov": Method("nesterov", NesterovMomentum(), weight_decay=0.1, decay_until=40),
    "decoupled": Method(schedule=Cosine(50, 0.1), weight_decay=0.5, decoupled=True, decay_until=40),
    "dampening": Method(dampening=0.3, weight_decay=0.1),
    "rates": Method("nesterov", StepDecay(10, 0.5), kappa=KAPPA, layer_ratio=2.0),
    "depth 3": Method(depth=3, schedule=InverseSqrt(5)),
    "depth 2.5": Method(depth=2.5),
    "acceleration": Method(schedule=Acceleration(2, 40)),
    "annealed": Method(schedule=AnnealedLambda(0.5, 40)),
    "arrays": Method(schedule=Arrays(gamma=[0.01, 0.02, 0.005], beta=[0.5, 0.9])),
}


def measurements(name: str, loss: str = "squared") -> Measurements:
    """A run of 100 steps with batches, label noise and an initial speed."""
    method = METHODS[name]
    w = (U + 0.3, V + 0.5) if method.is_deep else (U + V, U - V)
    return Measurements(
        Setting(
            PROBLEM.with_loss(loss), *w, momentum=Momentum(0.01, 0.9), method=method,
            max_steps=100, velocity=(0.01 * w[0], -0.02 * w[1]),
            batches=BatchStream(5, 2, "with_replacement", seeds=0),
            label_noise=LabelNoise(5, 0.1, 30, seeds=0) if loss == "squared" else None,
        )
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_holds_on_both_backends(name: str) -> None:
    found = list(of_the_own_method(measurements(name)))
    assert len(found) == 6
    assert {s.verdict for s in found} <= {Verdict.HOLDS, Verdict.PARTLY}
    # the tolerances leave room for no fault that anyone would see
    assert max(s.tolerance for s in found) < 1e-8


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_losses_of_labels_hold_too(loss: str) -> None:
    found = list(of_the_own_method(measurements("nesterov", loss)))
    assert {s.verdict for s in found} <= {Verdict.HOLDS, Verdict.PARTLY}


def rates_with(change: Callable[[StepRates], StepRates]) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        exact = Method.rates
        patch.setattr(Method, "rates", lambda *a: change(exact(*a)))

    return plant


def of_the_next_step(patch: Patch) -> None:
    exact = Method.rates
    patch.setattr(Method, "rates", lambda m, g, b, first, n: exact(m, g, b, first + 1, n))


def schedule_of_the_chunk(patch: Patch) -> None:
    """A schedule that starts anew with each window of steps."""
    exact = Schedule.rates
    patch.setattr(Schedule, "rates", lambda s, g, b, first, n: exact(s, g, b, 1, n))


def gamma_off(patch: Patch) -> None:
    exact = ScaledProblem.of.__func__  # type: ignore[attr-defined]

    def wrong(cls: type, groups: Any, gamma: Any, *rest: Any) -> list[ScaledProblem]:
        return exact(cls, groups, 1.001 * gamma, *rest)

    patch.setattr(ScaledProblem, "of", classmethod(wrong))


def without_speed(patch: Patch) -> None:
    exact = Engine.__init__
    patch.setattr(Engine, "__init__", lambda e, *a, **k: exact(e, *a, **(k | {"previous": None})))


def without_the_speed_in_the_sums(patch: Patch) -> None:
    exact = StoredFamily.first_state

    def wrong(stored: StoredFamily, n: int) -> Any:
        state = exact(stored, n)
        assert state.recent_sums is not None
        state.recent_sums.zero_()
        return state

    patch.setattr(StoredFamily, "first_state", wrong)


def half_of_the_potential(patch: Patch) -> None:
    exact = StoredFamily._potential_gained
    patch.setattr(StoredFamily, "_potential_gained", lambda *a: 0.5 * exact(*a))


def decay_left_out(patch: Patch) -> None:
    exact = Engine.snapshot

    def wrong(engine: Engine, *runs: Any) -> Any:
        if engine.state.decays is not None:
            engine.state.decays[:] = 0
        return exact(engine, *runs)

    patch.setattr(Engine, "snapshot", wrong)


def sums_of(name: str, factor: float) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        exact = getattr(FamilySteps, name)

        def wrong(*given: Any) -> Any:
            term, backward = exact(*given)
            return factor * term, backward

        patch.setattr(FamilySteps, name, wrong)

    return plant


def layers_not_weighted(patch: Patch) -> None:
    patch.setattr(StoredFamily, "_weighted", lambda stored, pair: pair)


def another_loss(patch: Patch) -> None:
    exact = Family.of.__func__  # type: ignore[attr-defined]
    patch.setattr(Family, "of", classmethod(lambda cls, m, loss, g: exact(cls, m, "squared", g)))


W, S, DELTA, KKT = ("w_k of the engine", "S_+-, its decay", "Delta_(k+1)", "theta_(k+1)")
FAULTS = {
    "beta and gamma of the next step": ("warm-up", of_the_next_step, (W,)),
    "the schedule starts anew with each chunk": ("arrays", schedule_of_the_chunk, (W,)),
    "gamma off by 0.1 %": ("acceleration", gamma_off, (W,)),
    "the decay goes on": (
        "nesterov",
        rates_with(lambda r: r._replace(decay=r.decay.amax(0, keepdim=True).expand_as(r.decay))),
        (W,),
    ),
    "dampened from the first step": (
        "dampening", rates_with(lambda r: r._replace(step=r.step.amin(0) + 0 * r.step)), (W,),
    ),
    "the initial speed ignored": ("annealed", without_speed, (W,)),
    "the initial speed not in S": ("decoupled", without_the_speed_in_the_sums, (S, DELTA, KKT)),
    "half of the logarithm": ("warm-up", half_of_the_potential, (S, DELTA, KKT)),
    "half of the potential of depth 3": ("depth 3", half_of_the_potential, (S, "u_(k+1)^(2-D)")),
    "no decay in Delta": ("nesterov", decay_left_out, (S, DELTA)),
    # it is taken out of S and put into Delta again: no certificate depends on it
    "no decoupled decay in S": ("decoupled", decay_left_out, (S,)),
    "S of Nesterov off by 1 %": ("rates", sums_of("_nesterov", 1.01), (S,)),
    "S of depth 2.5 off by 1 %": (
        "depth 2.5", sums_of("_heavy_ball_on_powers", 1.01), (S,)
    ),
    "layers not weighted": ("rates", layers_not_weighted, (W,)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: Patch) -> None:
    name, plant, caught = FAULTS[fault]
    given = measurements(name)
    plant(monkeypatch)
    violated = [s.name for s in of_the_own_method(given) if s.verdict is Verdict.VIOLATED]
    for text in caught:
        assert any(text in name for name in violated), (text, violated)


def test_a_run_on_another_loss_is_found(monkeypatch: Patch) -> None:
    given = measurements("nesterov", "logistic")
    another_loss(monkeypatch)
    assert [s for s in of_the_own_method(given) if s.verdict is Verdict.VIOLATED and W in s.name]

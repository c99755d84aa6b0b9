"""A certificate of a flow is evidence only if a fault would show: weights are corrupted here.

In the middle of an integration every weight is changed by 30 % at random, and the solver goes on
from there. What is printed as a number then has to be large; what could not be is no number.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dln_momentum import Engine, FlowPath, Momentum, Problem, gradient_flow, momentum_flow, sparse
from dln_momentum.cli.flow import flow
from dln_momentum.flows import summed_path_integrals
from dln_momentum.flows.stepping import IntegratorState
from dln_momentum.outputs.flow_summary import CERTIFICATES, measure
from dln_momentum.theory.continuous_bias import limit_bias, path_integrals, running_bias
from dln_momentum.theory.small_lambda import lambda_threshold
from dln_momentum.verification import Measurements, Setting, Verdict
from dln_momentum.verification.statements import (
    of_gradient_flow,
    of_iterates,
    of_momentum_flow,
)
from tests.flow_oracles import dual_minimizer, uniform_start
from tests.helpers import column, run_job

PROBLEM = sparse(5, 8, 1, seed=0)
W_0 = uniform_start(PROBLEM)
CHECKS = (*CERTIFICATES, "energy_balance_error")
SEEN = 1e-3
"""Far above what an intact flow shows, 1e-7, and below what a corruption of 30 % leaves."""

flows = pytest.mark.parametrize("lam", [0.0, 0.1, 1.0])


def follow(lam: float) -> FlowPath:
    if lam == 0:
        return gradient_flow(PROBLEM, W_0, W_0, math.inf, form="direct", tol=1e-20)
    return momentum_flow(PROBLEM, W_0, W_0, lam, math.inf, tol=1e-20)


@pytest.fixture
def corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight off by 30 % at random, once, after so many steps of the solver."""
    exact = IntegratorState._step

    def wrong(integrator: IntegratorState, solver) -> str | None:
        message = exact(integrator, solver)
        # the restart of `measure` follows the mirror form, which has no w_+- in its state
        if integrator.steps == 60 and len(solver.y) > 2 * PROBLEM.d:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(2 * PROBLEM.d, generator=generator, dtype=torch.float64).numpy()
            state = solver.y.copy()
            state[: noise.size] *= 1 + 0.3 * noise
            solver.y, solver.f = state, solver.fun(solver.t, state)
        return message

    monkeypatch.setattr(IntegratorState, "_step", wrong)


@flows
def test_an_intact_flow_is_certified(lam: float) -> None:
    found = measure(PROBLEM, follow(lam), records=50, tol=1e-20).end
    for name in CHECKS:
        assert found[name] < 1e-7 + found["path_integral_uncertainty"], name


@flows
@pytest.mark.usefixtures("corrupted")
def test_corrupted_weights_show_in_every_certificate(lam: float) -> None:
    path = follow(lam)
    assert path.converged
    found = measure(PROBLEM, path, records=50, tol=1e-20).end
    # it is no doubt of the quadrature that is seen
    assert found["path_integral_uncertainty"] < SEEN / 10
    for name in CHECKS:
        # the limit of the end is where the corrupted path itself is not
        assert found[name] > SEEN, name


@pytest.mark.usefixtures("corrupted")
@pytest.mark.parametrize("overrides", [["flow=gradient"], ["flow.lam=1"]])
def test_dln_flow_certifies_no_corrupted_flow(tmp_path: Path, overrides: list[str]) -> None:
    keys = ["data.n=5", "data.d=8", "data.s=1", "outputs.figure=false"]
    run_job("flow", flow, tmp_path, *keys, *overrides)
    kept = json.loads((tmp_path / "summary.json").read_text())
    for name in CHECKS:
        assert kept[name] > SEEN, name


def test_what_holds_by_construction_is_not_a_number() -> None:
    """The mirror form has w_+- = w_0 exp(-+G) in it: nothing could show."""
    path = gradient_flow(PROBLEM, W_0, W_0, math.inf, tol=1e-20)
    assert path.mirror_form
    found = measure(PROBLEM, path, records=50, tol=1e-20)
    for name in (*CERTIFICATES, "distance_to_gradient_flow_minimizer"):
        assert math.isnan(found.end[name]), name
        assert name not in found.scalars or found.scalars[name].isnan().all()
    assert found.end["l1_norm"] > 0


@pytest.mark.usefixtures("corrupted")
def test_dln_verify_finds_a_corrupted_flow() -> None:
    measurements = Measurements(Setting(PROBLEM, W_0, W_0, lam=1.0))
    found = [*of_momentum_flow(measurements), *of_gradient_flow(measurements)]
    names = [s.name for s in found if s.verdict is Verdict.VIOLATED]
    for start in ("MGF: E_0 - E_t", "MGF: Delta_t = ", "MGF: Delta_inf = ", "MGF: KKT",
                  "MGF: theta_t = ", "MGF: theta_inf = argmin D", "GF: theta_inf",
                  "GF: theta_t", "GF: grad psi"):  # fmt: skip
        assert any(name.startswith(start) for name in names), (start, names)


def test_dln_verify_finds_a_corrupted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Engine.advance

    def wrong(engine: Engine, steps: int) -> None:
        exact(engine, steps)
        if engine.step == 1000:
            generator = torch.Generator().manual_seed(0)
            shape = engine.state.w.shape
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            engine.state.w *= 1 + 0.3 * noise

    monkeypatch.setattr(Engine, "advance", wrong)
    measurements = Measurements(Setting(PROBLEM, W_0, W_0, Momentum(0.01, 0.9), lam=1.0))
    names = [s.name for s in of_iterates(measurements) if s.verdict is Verdict.VIOLATED]
    for start in ("MGD: S_+- = ", "MGD: u^2 - v^2", "MGD: Delta_k", "MGD: Delta_inf = ",
                  "MGD: KKT", "MGD: theta_k", "MGD: theta_inf = argmin D"):  # fmt: skip
        assert any(name.startswith(start) for name in names), (start, names)


# ---- initial speed


def with_speed(lam: float, time: float, tol: float | None = None) -> FlowPath:
    generator = torch.Generator().manual_seed(3)
    dw = 0.02 * torch.randn(2, PROBLEM.d, generator=generator, dtype=torch.float64)
    return momentum_flow(
        PROBLEM, W_0, 1.5 * W_0, lam, time, dw_plus_0=dw[0], dw_minus_0=dw[1], tol=tol
    )


@pytest.mark.parametrize(("lam", "time"), [(0.1, 3.0), (0.5, 3.0), (2.0, 20.0)])
def test_the_start_term_against_quadrature_of_the_definition(lam: float, time: float) -> None:
    """I = int lambda (w'/w)^2 + [lambda w'/w]_0^t, also through sign changes."""
    path = with_speed(lam, time)
    summed = summed_path_integrals(PROBLEM, path)
    # the last time is no limit: the speed that is left there is not negligible
    assert (path.lam * path.dw_plus[-1] / path.w_plus[-1]).abs().max() > 1e-3
    allowed = 1e-7 + float(summed.uncertainty[-1])
    for i, w, dw, regular, at_end, running in zip(
        summed.integrals,
        (path.w_plus, path.w_minus),
        (path.dw_plus, path.dw_minus),
        path_integrals(path),
        (limit_bias(path).i_plus, limit_bias(path).i_minus),
        (running_bias(path).i_plus, running_bias(path).i_minus),
        strict=True,
    ):
        start, end = lam * dw[0] / w[0], lam * dw[-1] / w[-1]
        torch.testing.assert_close(regular[-1], i[-1], rtol=0, atol=allowed)
        torch.testing.assert_close(at_end, i[-1] - start, rtol=0, atol=allowed)
        torch.testing.assert_close(running[-1], i[-1] + end - start, rtol=0, atol=allowed)


@pytest.mark.parametrize("lam", [0.3, 3.0])
def test_the_summary_of_a_flow_that_starts_with_speed(lam: float) -> None:
    path = with_speed(lam, math.inf, tol=1e-22)
    start = torch.stack([W_0, 1.5 * W_0])
    found = measure(PROBLEM, path, records=30, tol=1e-20, start=start)
    doubt = found.end["path_integral_uncertainty"]
    for name in CHECKS:
        assert found.end[name] < 1e-7 + 10 * doubt, name
    c = (start[0] / start[1]).abs().log()
    oracle = dual_minimizer(PROBLEM, (start[0] * start[1]).abs(), c)
    assert found.end["distance_to_gradient_flow_minimizer"] == pytest.approx(
        float(torch.linalg.vector_norm(path.theta[-1] - oracle)), rel=1e-6
    )


@pytest.mark.parametrize("lam", [0.3, 3.0])
def test_dln_verify_from_a_start_with_speed(lam: float) -> None:
    generator = torch.Generator().manual_seed(3)
    dw = 0.02 * torch.randn(2, PROBLEM.d, generator=generator, dtype=torch.float64)
    momentum = Momentum.from_pair(lam=lam, beta=0.9)
    measurements = Measurements(Setting(PROBLEM, W_0, 1.5 * W_0, momentum, velocity=(dw[0], dw[1])))
    found = [*of_momentum_flow(measurements), *of_iterates(measurements)]
    assert not [s.name for s in found if s.verdict is Verdict.VIOLATED]
    holds = [s.name for s in found if s.verdict is Verdict.HOLDS]
    assert "MGF: Delta_inf = Delta_0 exp(-(I_+ + I_-))" in holds
    assert "MGD: Delta_inf = Delta_0 exp(-(S_+ + S_-))" in holds


def test_the_bound_of_the_drift_is_nearly_attained() -> None:
    """With u_0 = 0, v_0 = 1 and a small target all of F(w_0) is spent on u' (not v')."""
    problem = Problem(column(1.0, 0.0)[None], column(1e-3))
    one = torch.ones(2, dtype=torch.float64)
    lam = 0.5 * float(lambda_threshold(problem, one, -one)) * 1e-6
    path = momentum_flow(problem, one, -one, lam, math.inf, tol=1e-24)
    drift = (path.w_plus * path.w_minus)[-1] - (path.w_plus * path.w_minus)[0]
    # a bound that were smaller by a factor of 2 would be violated
    assert 0.99 < float(drift.abs().sum()) / (2 * lam * float(path.loss[0])) <= 1 + 1e-6

"""The statements on flows at hostile settings: none is wrong, none holds that could not fail."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import dln_momentum as dln
from dln_momentum.flows.given_function import CHECKED, GivenFunction
from dln_momentum.verification import Measurements, Setting, Statement, Verdict

every = importlib.import_module("dln_momentum.verification.statements")
"""All statements; the package has a function of this module's name."""

PARTS = (every.of_momentum_flow, every.of_small_lambda, every.of_changing_flows)
UNRESOLVED = 0.3

X = np.random.default_rng(0).normal(size=(3, 6))
DEPENDENT = np.vstack([X[:2], X[0] + X[1]])
OUTSIDE = np.array([1.0, 1.0, -1.0]) / 3**0.5
"""Of length 1, orthogonal to the range of `DEPENDENT`."""
SCALES = dln.Start(np.geomspace(1e-6, 1, 6), np.geomspace(0.5, 1e-9, 6))
SETTINGS: dict[str, tuple[np.ndarray, dln.Start, float]] = {
    # the flow ends at t = 1e17, after steps over which I_+- has no digit by its definition
    "X of 1e-8, lambda of 1e-3": (1e-8 * X, dln.uniform(0.1), 1e-3),
    "X of 1e-8, lambda of 1": (1e-8 * X, dln.uniform(0.1), 1.0),
    "a start of 1e-60": (X, dln.uniform(1e-60), 10.0),
    "dependent rows": (DEPENDENT, dln.gaussian(0.1, seed=3), 1.0),
    "layers 1e-9 apart": (X, dln.Start(np.full(6, 0.1), np.full(6, 0.1 - 1e-10)), 0.1),
    "rank 1": (np.outer([1.0, 2.0, 3.0], X[0]), dln.gaussian(0.1, seed=1), 1.0),
    "a start of mixed scales": (X, SCALES, 1.0),
    "w_- of 1e-15": (X, dln.Start(np.full(6, 0.1), np.full(6, 0.1 - 1e-15)), 1.0),
    "n = d = 1": (X[:1, :1], dln.uniform(0.1), 1.0),
}


def fitted(X: np.ndarray) -> np.ndarray:
    theta = np.zeros(X.shape[1])
    theta[:2] = [1.0, -0.5][: len(theta)]
    return X @ theta


def evaluated(
    X: np.ndarray, start: dln.Start, lam: float, parts: Any = PARTS, y: Any = None
) -> list[Statement]:
    problem = dln.Problem(X, fitted(X) if y is None else y)
    w_plus, w_minus = (w.reshape(problem.d) for w in start.weights(problem.d))
    m = Measurements(Setting(problem, w_plus, w_minus, lam=lam, max_steps=1000))
    return [statement for part in parts for statement in part(m)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_no_verdict_on_a_flow_is_wrong(name: str) -> None:
    """The theorems are proved: what float64 decides holds, and what it does not decide says so."""
    found = evaluated(*SETTINGS[name])
    for statement in found:
        assert statement.verdict is not Verdict.VIOLATED, statement
        if statement.verdict is Verdict.NOT_MET:
            assert statement.unmet[0].found, statement
        else:
            assert math.isfinite(statement.predicted), statement
            assert math.isfinite(statement.measured), statement
            assert statement.error <= statement.tolerance <= UNRESOLVED, statement
    assert sum(statement.verdict is not Verdict.NOT_MET for statement in found) > 5


def named(found: list[Statement], start: str) -> Statement:
    (one,) = [statement for statement in found if statement.name.startswith(start)]
    return one


@pytest.mark.slow
def test_exponents_below_their_own_error_are_not_judged() -> None:
    """At lambda = 1e-9 the allowed errors of I_+-, 1e-7, hide all of it: a wrong I_+- would hold.

    I_+- is about lambda int (grad L)^2, of the size 1e-9 here.
    """
    X, start, _ = SETTINGS["dependent rows"]
    found: Any = evaluated(X, start, 1e-9)
    for name in (
        "MGF: I_+- = lambda int",
        "MGF: Re int lambda",
        "MGF: Delta_t = Delta_0 exp",
        "MGF: Delta_inf = Delta_0 exp",
        "annealed flow: I_+- =",
        "annealed flow: u^2 - v^2 =",
    ):
        statement = named(found, name)
        assert statement.verdict is Verdict.NOT_MET, statement
        assert any("errors" in hypothesis.found for hypothesis in statement.unmet), statement
    # what is not about their size is judged as before
    assert named(found, "MGF: KKT residual").verdict in (Verdict.HOLDS, Verdict.PARTLY)
    assert named(found, "MGF: E_0 - E_t").verdict in (Verdict.HOLDS, Verdict.PARTLY)


def test_all_that_is_wrong_with_a_setting_is_said_at_once() -> None:
    problem: Any = dln.Problem(X, X[:, 0])
    call: Any = dln.verify
    with pytest.raises(dln.InputError) as caught:
        call(problem, lam=-1, eps="a", max_steps=0, tol=-1)
    said = str(caught.value)
    for key in ("lam = -1", "eps = 'a'", "max_steps = 0", "tol = -1"):
        assert key in said
    with pytest.raises(dln.InputError, match="tol = nan must be finite and > 0"):
        call(problem, lam=1, tol=math.nan)


def test_targets_that_were_rounded_are_no_violation() -> None:
    """Of y, 5e-11 is outside the range of X: the limits fit the rest."""
    y = fitted(DEPENDENT)
    y = y + 5e-11 * np.linalg.norm(y) * OUTSIDE
    found = evaluated(DEPENDENT, dln.uniform(0.1), 1.0, (every.of_gradient_flow,), y)
    assert [statement for statement in found if statement.verdict is Verdict.VIOLATED] == []
    # a loss that no theta has is refused, and not looked for through 100,000 steps
    with pytest.raises(dln.InputError, match="outside the range of X, and no theta fits it"):
        dln.flow(dln.Problem(DEPENDENT, y), tol=1e-24)
    least = 1.02 * (5e-11 * np.linalg.norm(y)) ** 2 / 6
    assert dln.flow(dln.Problem(DEPENDENT, y), tol=float(least)).status == "converged"


def between(t: float) -> float:
    """1, and -1 in the middle between any two of the times that are checked before."""
    return 1.0 if abs(t * (CHECKED - 1) / 20.0 % 1 - 0.5) > 0.2 else -1.0


def of_a_noise() -> Any:
    values = iter(1.0 + np.random.default_rng(0).random(10_000))
    return lambda t: next(values)


@pytest.mark.parametrize(
    ("lam", "message"),
    [
        (between, r"lam\([\d.e-]+\) = -1 must be finite and > 0"),
        (lambda t: 1 / (between(t) + 1), r"lam\(t\) failed at t = [\d.e-]+: .*division by zero"),
        (lambda t: 1.0 if t < 0.5 else 0.1, r"lam\(t\) jumps at t = 0\.5, from 1 to 0\.1"),
        (of_a_noise(), r"lam\(0\) = .*, and .* when it is called again"),
    ],
    ids=["negative between", "fails between", "jumps", "noise"],
)
def test_a_function_is_refused_wherever_it_is_wrong(lam: Any, message: str) -> None:
    with pytest.raises(dln.InputError, match=message):
        dln.flow(dln.Problem(X, fitted(X)), lam=lam, time=20.0)


SCHEDULES: dict[str, tuple[Any, Any, float]] = {
    # evaluated at no time outside [0, T]
    "known up to T alone": (lambda t: 1.0 + (20.0 - t) ** 2.5, 1.0, 20.0),
    "of T = 1e-300": (lambda t: 1.0, 1.0, 1e-300),
    "tiny": (lambda t: 1e-12 * (1 + t), 1.0, 20.0),
    "fast": (lambda t: 1 + 0.5 * math.sin(200 * t), 1.0, 1.0),
    "a friction that jumps": (1.0, lambda t: 1.0 if t < 0.7123 else 3.0, 20.0),
    "a friction up to 1e17": (1.0, lambda t: math.exp(2 * t), 20.0),
    "a long time": (lambda t: 1 / (1 + t) + 0.1, 1.0, 1e8),
    "a slope near f": (dln.Annealed(1.0, 11.0 + 1e-9, 10.0, "linear"), 1.0, 20.0),
    "a slope of f": (dln.Annealed(1.0, 11.0, 10.0, "linear"), 1.0, 20.0),
    "a fall to 1e-5": (dln.Annealed(1.0, 1e-5, 10.0), 1.0, 20.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_followed_to_the_end(name: str) -> None:
    """Each failed, took minutes, or had an energy that was off by 1e-7 and more."""
    lam, friction, time = SCHEDULES[name]
    problem = dln.Problem(X, fitted(X))
    path = dln.flow(problem, dln.uniform(0.1), lam=lam, friction=friction, time=time)
    assert path.status in ("time_reached", "converged")
    # a step for each 1/20 of the fastest time: 20,000 of them would be one for each tiny lambda
    assert len(path.t) < 2000
    found = path.certify()
    assert found.energy_balance_error < 1e-10
    for error, allowed in found.tolerances.items():
        assert getattr(found, error) <= allowed


@pytest.mark.parametrize("T", [1e-300, 1e-4, 1e-2, 1.0, 1e3, 1e5, 1e8, 1e11])
def test_slopes_of_functions_of_any_horizon(T: float) -> None:
    """A period in T, or where T is long in a unit of time, against the derivative."""
    unit = min(1.0, T)
    function = GivenFunction("lam", lambda t: 2 + math.sin(2 * math.pi * (t / unit % 1)), T)
    for t in np.linspace(0, T, 7).tolist():
        exact = 2 * math.pi * math.cos(2 * math.pi * (t / unit % 1))
        # rounding of 3 over a step of 1e-5 and the fourth power of 6e-5 to 1e-3, times 30
        assert function.slope(t) * unit == pytest.approx(exact, abs=1e-9)


def test_annealed_flows_are_those_of_another_solver() -> None:
    """lambda grows by almost f a unit of time, where P has a closed form with two poles."""
    lam, problem = dln.Annealed(1.0, 3.0 + 1e-9, 2.0, "linear"), dln.Problem(X, fitted(X))
    w = 0.1 * math.sqrt(2)

    def rhs(t: float, s: np.ndarray) -> np.ndarray:
        plus, minus, *speed = s.reshape(4, 6)
        g = X.T @ (X @ ((plus**2 - minus**2) / 4) - problem.y.numpy()) / 3
        ddw = [-(speed[0] + g * plus) / lam(t), -(speed[1] - g * minus) / lam(t)]
        return np.concatenate([*speed, *ddw])

    start = np.concatenate([np.full(12, w), np.zeros(12)])
    solved = solve_ivp(rhs, (0, 2.0), start, "DOP853", rtol=1e-13, atol=1e-16)
    path = dln.flow(problem, dln.uniform(0.1), lam=lam, time=2.0)
    found = np.concatenate([path.w_plus[-1], path.w_minus[-1]])
    np.testing.assert_allclose(found, solved.y[:12, -1], rtol=0, atol=1e-11)
    assert path.certify().kkt_residual < 1e-7


def test_a_flow_that_hardly_moved_claims_no_digits_of_its_certificate() -> None:
    """The exponents are a share of 1e-18 of the terms they are read from: all of it is rounding."""
    found = dln.flow(dln.Problem(X, fitted(X)), dln.uniform(0.1), lam=1.0, time=1e-9).certify()
    assert found.tolerances["kkt_residual"] > 1
    assert "0 +- " + f"{found.tolerances['kkt_residual']:.1e}" == found.rows[0][1]
    assert dln.flow(dln.Problem(X, fitted(X)), lam=1.0, friction="3/t", time=1e-300)

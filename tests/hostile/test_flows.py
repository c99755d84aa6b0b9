"""The statements on flows at hostile settings: none is wrong, none holds that could not fail."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

import dln_momentum as dln
from dln_momentum.verification import Measurements, Setting, Statement, Verdict

every = importlib.import_module("dln_momentum.verification.statements")
"""All statements; the package has a function of this module's name."""

PARTS = (every.of_momentum_flow, every.of_small_lambda, every.of_changing_flows)
UNRESOLVED = 0.3

X = np.random.default_rng(0).normal(size=(3, 6))
DEPENDENT = np.vstack([X[:2], X[0] + X[1]])
SETTINGS: dict[str, tuple[np.ndarray, dln.Start, float]] = {
    # the flow ends at t = 1e17, after steps over which I_+- has no digit by its definition
    "X of 1e-8, lambda of 1e-3": (1e-8 * X, dln.uniform(0.1), 1e-3),
    "X of 1e-8, lambda of 1": (1e-8 * X, dln.uniform(0.1), 1.0),
    "a start of 1e-60": (X, dln.uniform(1e-60), 10.0),
    "dependent rows": (DEPENDENT, dln.gaussian(0.1, seed=3), 1.0),
    "layers 1e-9 apart": (X, dln.Start(np.full(6, 0.1), np.full(6, 0.1 - 1e-10)), 0.1),
    "n = d = 1": (X[:1, :1], dln.uniform(0.1), 1.0),
}


def evaluated(X: np.ndarray, start: dln.Start, lam: float) -> list[Statement]:
    theta = np.zeros(X.shape[1])
    theta[:2] = [1.0, -0.5][: len(theta)]
    problem = dln.Problem(X, X @ theta)
    w_plus, w_minus = (w.reshape(problem.d) for w in start.weights(problem.d))
    m = Measurements(Setting(problem, w_plus, w_minus, lam=lam, max_steps=1000))
    return [statement for part in PARTS for statement in part(m)]


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

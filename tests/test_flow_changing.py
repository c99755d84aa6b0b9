"""Flows whose lambda and friction change with time: identities in many digits, and the solver.

(docs/theory.md#changing-coefficients.)
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import dln_momentum as dln
from dln_momentum import Annealed, FlowPath, InputError, momentum_flow, sparse
from dln_momentum.flows import contour_integrals, summed_path_integrals
from dln_momentum.flows.coefficients import Coefficients, friction_of
from dln_momentum.flows.driven_system import DrivenSystem
from dln_momentum.theory.continuous_bias import log_free_error, path_integrals
from tests.flow_oracles import uniform_start

mp: Any = mpmath.mp

PROBLEM = sparse(5, 8, 1, seed=0)
W_0 = uniform_start(PROBLEM)
FLOWS = {
    "nesterov": (1.0, "3/t", 20.0),
    "geometric": (Annealed(1.0, 0.05, 8.0), 1.0, 20.0),
    "linear": (Annealed(0.2, 1.0, 8.0, "linear"), 1.5, 20.0),
    "functions": (lambda t: 0.5 + 0.2 * math.sin(t), lambda t: 1 + 0.3 * math.cos(t), 15.0),
}


@pytest.fixture(scope="module", params=FLOWS)
def path(request: pytest.FixtureRequest) -> FlowPath:
    lam, friction, time = FLOWS[request.param]
    return momentum_flow(PROBLEM, W_0, 1.3 * W_0, lam, time, friction=friction)


def test_the_identities_hold_along_the_path(path: FlowPath) -> None:
    summed = summed_path_integrals(PROBLEM, path)
    error = (summed.integrals - path_integrals(path)).abs().amax((0, 2))
    # local errors of 1e-13 in a few hundred steps, and what the quadrature may miss
    assert (error < 1e-10 + summed.uncertainty).all()
    assert error.max() < 1e-6
    assert log_free_error(path).max() < 1e-11
    spent = path.energy[0] - path.energy - path.dissipated
    assert spent.abs().max() < 1e-10 * path.energy[0]


@pytest.mark.parametrize("name", FLOWS)
def test_a_wrong_weight_violates_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coefficients, "weight", lambda c, t: 1.01 * c._weight(t))
    lam, friction, time = FLOWS[name]
    path = momentum_flow(PROBLEM, W_0, 1.3 * W_0, lam, time, friction=friction)
    assert log_free_error(path).max() > 1e-5


@pytest.mark.parametrize("name", FLOWS)
def test_the_weight_solves_its_equation(name: str) -> None:
    lam, friction, time = FLOWS[name]
    given = Coefficients(lam, friction_of(friction), time)
    for t in (0.3, 3.0, 7.0, 11.0):
        h = 1e-4
        slope = (given.weight(t + h) - given.weight(t - h)) / (2 * h)
        # a central difference: its error is of the order of h^2
        expected = given.weight(t) * given.damping(t) / given.inertia(t) - 1
        assert slope == pytest.approx(expected, abs=1e-6)
        assert given.weight(t) > 0


def test_nesterov_against_another_solver() -> None:
    X, y, d = PROBLEM.X.numpy(), PROBLEM.y.numpy(), PROBLEM.d

    def rhs(t: float, s: np.ndarray) -> np.ndarray:
        u, v, du, dv = s.reshape(4, d)
        g = X.T @ (X @ (u * v) - y) / PROBLEM.n
        return np.concatenate([du, dv, -3 / t * du - g * v, -3 / t * dv - g * u])

    # from rest at a t so small that w moves by 1e-9 before it
    start = np.concatenate([W_0, 0 * W_0, 0 * W_0, 0 * W_0])
    other = solve_ivp(rhs, (1e-4, 10.0), start, "LSODA", rtol=1e-12, atol=1e-14).y[:, -1]
    path = momentum_flow(PROBLEM, W_0, W_0, 1.0, 10.0, friction="3/t")
    np.testing.assert_allclose(path.u[-1].numpy(), other[:d], rtol=0, atol=1e-7)
    np.testing.assert_allclose(path.v[-1].numpy(), other[d : 2 * d], rtol=0, atol=1e-7)


@pytest.mark.parametrize("c", [0.7, 3.0 - 2.0j])
def test_elimination_solves_the_dense_system(c: complex) -> None:
    given = Coefficients(Annealed(0.5, 0.1, 5.0), 1.3)
    system = DrivenSystem(PROBLEM.X.numpy(), PROBLEM.y.numpy(), given)
    rng = np.random.default_rng(0)
    state = rng.standard_normal(5 * 8 + 5 + 1)
    columns = [np.imag(system.rhs(1.0, state + 1e-30j * row)) / 1e-30 for row in np.eye(state.size)]
    right = rng.standard_normal(state.size)
    found = system.linearise(1.0, state).factor(c)(right)
    matrix = c * np.eye(state.size) - np.stack(columns, axis=1)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-10, atol=1e-11)


def series(m: list, f: list, w: list, dw: list, x: list, y: Any, order: int) -> list:
    """Taylor coefficients of w_+-, [2][d][order], for n = 1, polynomial m and t f(t)."""
    d = len(x)
    c = [[[w[s][i], dw[s][i]] for i in range(d)] for s in (0, 1)]
    gradient: list = []
    for k in range(order - 2):
        squares = [
            sum(c[0][i][j] * c[0][i][k - j] - c[1][i][j] * c[1][i][k - j] for j in range(k + 1))
            for i in range(d)
        ]
        residual = sum(x[i] * squares[i] for i in range(d)) / 4 - (y if k == 0 else 0)
        gradient.append(residual)
        for s, sign in ((0, 1), (1, -1)):
            for i in range(d):
                a = c[s][i]
                right = -sign * x[i] * sum(gradient[j] * a[k - j] for j in range(k + 1))
                right -= sum(f[j] * (k - j + 1) * a[k - j + 1] for j in range(min(k + 1, len(f))))
                right -= sum(
                    m[j] * (k - j + 2) * (k - j + 1) * a[k - j + 2]
                    for j in range(1, min(k + 1, len(m)))
                )
                a.append(right / (m[0] * (k + 2) * (k + 1)))
    return [*c, gradient]


def test_the_identity_in_forty_digits() -> None:
    """lambda = 1 + t/5, f = 1, P = lambda/(1 - 1/5): one step of a Taylor series of order 60."""
    with mp.workdps(60):
        x, y, t = [mp.mpf(1), mp.mpf(-2)], mp.mpf("0.7"), mp.mpf("0.05")
        w, dw = [[mp.mpf("0.3"), mp.mpf("0.5")], [mp.mpf("0.4"), mp.mpf("-0.2")]], [[0, 0], [0, 0]]
        plus, minus, gradient = series([mp.mpf(1), mp.mpf(1) / 5], [mp.mpf(1)], w, dw, x, y, 60)

        def value(c: list, at: Any) -> Any:
            return mp.polyval(c[::-1], at)

        def slope(c: list, at: Any) -> Any:
            return mp.polyval([k * a for k, a in enumerate(c)][:0:-1], at)

        P = lambda at: (1 + at / 5) / (1 - mp.mpf(1) / 5)  # noqa: E731
        for c, sign, at_0 in ((plus, 1, w[0]), (minus, -1, w[1])):
            for i in (0, 1):
                rate = lambda at, a=c[i]: slope(a, at) / value(a, at)  # noqa: E731
                I = mp.quad(lambda at, r=rate: P(at) * r(at) ** 2, [0, t])  # noqa: E741
                # P/lambda is constant here
                G = mp.quad(lambda at, k=x[i]: k * value(gradient, at), [0, t]) / (
                    1 - mp.mpf(1) / 5
                )
                left = mp.log(abs(value(c[i], t) / at_0[i]))
                assert abs(left - (-sign * G - I - P(t) * rate(t))) < mp.mpf(10) ** -40


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"friction": "3/t"}, "time = inf must be finite for friction b/t"),
        ({"friction": "0.5/t", "time": 3.0}, "must have b > lam"),
        ({"friction": "3/t", "time": 3.0, "speed": 1.0}, "must be at rest"),
        ({"friction": "abc"}, "must be a number >= 1e-150"),
        ({"lam": [1, 2], "friction": 2.0}, "for one flow"),
        ({"lam": 0, "friction": 2.0}, "must be 1 for lam = 0"),
        ({"lam": lambda t: -1.0, "time": 4.0}, "must be finite and > 0"),
    ],
)
def test_what_is_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dln.flow(PROBLEM, **given)


def test_contours_count_sign_changes_and_give_the_finite_part() -> None:
    path = momentum_flow(PROBLEM, W_0, W_0, 4.0, 60.0)
    found = contour_integrals(PROBLEM, path)
    assert int(path.sign_changes.sum()) > 1
    assert torch.equal(found.zeros.sum(0), path.sign_changes.double())
    # the cut-off of the sums leaves 1e-8
    end = (found.integrals - path_integrals(path))[:, -1]
    assert end.abs().max() < 1e-7


def test_the_weight_of_a_long_flow() -> None:
    """P of a lambda that changes slowly is lambda (1 + lambda') to second order in lambda/time.

    An explicit method would need more steps than the flow has memories lambda/f, here 4e10.
    """
    annealed = Annealed(1.0, 0.25, 1e10)
    weight = Coefficients(annealed, 1.0, 1e10).weight
    for t in (0.0, 1e3, 3e9, 0.9e10):
        expected = annealed(t) * (1 + annealed.slope(t))
        # the next order is 1e-20; three digits above the solver's rtol of 1e-13
        assert abs(weight(t) / expected - 1) < 1e-10, t


@pytest.mark.slow
def test_the_weight_does_not_depend_on_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for stiff in (math.inf, 0.0):
        monkeypatch.setattr("dln_momentum.flows.coefficients.STIFF", stiff)
        weight = Coefficients(Annealed(1.0, 0.25, 30.0), 1.0, 30.0).weight
        found.append([weight(t) for t in (0.0, 1.0, 7.3, 20.1, 29.0)])
    # both at rtol 1e-13
    np.testing.assert_allclose(found[1], found[0], rtol=1e-11)

"""The Newton matrices of the implicit method, solved by elimination, against dense ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dln_momentum import sparse
from dln_momentum.flows.gradient_system import DirectGradientSystem, MirrorGradientSystem
from dln_momentum.flows.momentum_system import MomentumSystem
from dln_momentum.flows.newton import StructuredRadau

PROBLEM = sparse(5, 8, 2, seed=3)
X, Y = PROBLEM.X.numpy(), PROBLEM.y.numpy()
RNG = np.random.default_rng(0)
SYSTEMS = {
    "momentum": (MomentumSystem(X, Y, 0.3), RNG.standard_normal(4 * 8 + 2 * 5 + 1)),
    "mirror": (
        MirrorGradientSystem(X, Y, RNG.standard_normal((2, 8))),
        RNG.standard_normal(5 + 8 + 1),
    ),
    "direct": (
        DirectGradientSystem(X, Y, RNG.standard_normal((2, 8))),
        RNG.standard_normal(5 + 3 * 8 + 1),
    ),
}


def dense_jacobian(rhs: Callable, state: np.ndarray) -> np.ndarray:
    """Complex-step differentiation: exact to rounding, since the systems are analytic."""
    columns = [rhs(0.0, state + 1e-30j * row).imag / 1e-30 for row in np.eye(state.size)]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("c", [0.7, 20.0, 3.0 - 2.0j])
def test_elimination_solves_the_dense_system(name: str, c: complex):
    system, state = SYSTEMS[name]
    matrix = c * np.eye(state.size) - dense_jacobian(system.rhs, state)
    right = RNG.standard_normal(state.size)
    found = system.linearise(0.0, state).factor(c)(right)
    # rounding, times a condition number of at most 1e3
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-10, atol=1e-11)


def test_the_structured_method_takes_the_steps_of_the_dense_one():
    system, _ = SYSTEMS["momentum"]
    w = np.full((2, 8), 0.3)
    initial = system.initial(w, 0 * w)
    common: dict = {"fun": system.rhs, "t_span": (0, 5), "y0": initial, "rtol": 1e-8}
    common |= {"atol": 1e-10}
    common_ours = common | {"method": StructuredRadau, "linearise": system.linearise}
    ours = solve_ivp(**common_ours)
    dense = solve_ivp(method="Radau", jac=lambda t, s: dense_jacobian(system.rhs, s), **common)
    assert ours.status == dense.status == 0
    assert (ours.nlu, len(ours.t)) == (dense.nlu, len(dense.t))
    # the same Newton iterates up to rounding
    np.testing.assert_allclose(ours.y[:, -1], dense.y[:, -1], rtol=1e-10, atol=1e-12)


class Singular:
    """The Jacobian of y' = -y that cannot be factored at steps above about 0.1."""

    def factor(self, c: complex):
        if abs(c) < 30:
            raise np.linalg.LinAlgError
        return lambda b: b / (c + 1)


def test_a_singular_newton_matrix_shortens_the_step():
    options: dict = {"method": StructuredRadau, "linearise": lambda t, state: Singular()}
    solution = solve_ivp(lambda t, s: -s, (0, 1), np.ones(1), rtol=1e-3, atol=1e-6, **options)
    assert solution.status == 0
    assert np.diff(solution.t).max() < 0.15
    np.testing.assert_allclose(solution.y[0, -1], np.exp(-1), rtol=1e-3)

"""The flows against SciPy in the layers (u, v), against each other, and their bookkeeping."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dln_momentum import InputError, Problem, gradient_flow, momentum_flow, sparse
from dln_momentum.data import LOADERS
from dln_momentum.flows import FlowOptions, FlowStatus, stepping
from tests.flow_oracles import dual_minimizer, layers, solve_in_layers, uniform_start

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)
SMALL = sparse(4, 7, 2, seed=5)
LAMBDAS = (1e-3, 1e-2, 0.1, 1.0, 4.0, 10.0)


def relative_error(path, reference: np.ndarray) -> float:
    """Largest error over time of (u, v), relative to its largest entry at that time."""
    error = np.abs(layers(path)[-len(reference) :] - reference).max(1)
    return float((error / np.abs(reference).max(1)).max())


@pytest.mark.parametrize("lam", LAMBDAS)
def test_agrees_with_scipy_in_the_layers(lam: float):
    # long enough for the default method to have changed to the implicit one where it does
    times = np.concatenate([np.linspace(lam, 10 * lam, 10), np.geomspace(11 * lam, 300 * lam, 20)])
    times = times[times < 60]
    path = momentum_flow(DEFAULT, W_0, W_0, lam, times[-1], times=torch.from_numpy(times))
    state = np.concatenate([W_0.numpy(), np.zeros(3 * DEFAULT.d)])
    # the documented accuracy; the reference is two orders better
    assert relative_error(path, solve_in_layers(DEFAULT, state, lam, times)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("lam", LAMBDAS)
def test_agrees_with_scipy_until_the_slow_end(lam: float):
    times = np.geomspace(1.0, 2000.0, 40)
    path = momentum_flow(DEFAULT, W_0, W_0, lam, times[-1], times=torch.from_numpy(times))
    state = np.concatenate([W_0.numpy(), np.zeros(3 * DEFAULT.d)])
    if lam < 0.1:
        reference = solve_in_layers(DEFAULT, state, lam, times, "LSODA")
    else:
        reference = solve_in_layers(DEFAULT, state, lam, times)
    # LSODA at rtol 1e-12 is good for a few 1e-10
    assert relative_error(path, reference) < 1e-8


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), log_lam=st.floats(-1.5, 1.5))
def test_any_start_and_any_speed(seed: int, log_lam: float):
    rng = np.random.default_rng(seed)
    state = rng.standard_normal(4 * SMALL.d)
    u, v, du, dv = torch.from_numpy(state).reshape(4, -1)
    lam, times = 10**log_lam, np.array([0.5, 2.0, 5.0])
    path = momentum_flow(
        SMALL,
        u + v,
        u - v,
        lam,
        5.0,
        dw_plus_0=du + dv,
        dw_minus_0=du - dv,
        times=torch.from_numpy(times),
    )
    reference = solve_in_layers(SMALL, state, lam, times)
    # 1e-9 at rest; a wild start may amplify it
    assert relative_error(path, reference) < 1e-8


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.3, 3.0), signs=st.integers(0, 2**14 - 1))
def test_scaling_and_sign_symmetry(scale: float, signs: int):
    """c w(c^2 t) solves MGF(lambda/c^2) of targets c^2 y, and a sign of w_+- changes nothing."""
    start = uniform_start(SMALL, 0.4)
    scaled = Problem(X=SMALL.X, y=scale**2 * SMALL.y)
    flips = torch.tensor([-1.0 if signs >> i & 1 else 1.0 for i in range(14)]).double()
    plus, minus = flips.reshape(2, 7)
    one = momentum_flow(SMALL, start, start, 0.5, 4.0)
    other = momentum_flow(
        scaled, scale * plus * start, scale * minus * start, 0.5 / scale**2, 4.0 / scale**2
    )
    # both at 1e-9 or better
    torch.testing.assert_close(
        other.w_plus[-1], scale * plus * one.w_plus[-1], rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(other.G[-1], one.G[-1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", ["explicit", "implicit", "auto"])
def test_mirror_form_of_gradient_flow_agrees_with_the_direct_one(method):
    times = torch.logspace(-1, 2.5, 30, dtype=torch.float64)
    mirror = gradient_flow(
        DEFAULT, W_0, W_0, 400.0, times=times, options=FlowOptions(method=method)
    )
    direct = gradient_flow(
        DEFAULT, W_0, W_0, 400.0, form="direct", times=times, options=FlowOptions(method=method)
    )
    assert mirror.mirror_form
    assert not direct.mirror_form
    for name in ("w_plus", "w_minus", "dw_plus", "G", "dissipated", "gradient_square"):
        # Radau's dense output is good for 1e-9
        torch.testing.assert_close(
            getattr(mirror, name), getattr(direct, name), rtol=1e-8, atol=1e-9
        )


@pytest.mark.parametrize("form", ["mirror", "direct"])
def test_gradient_flow_from_anywhere_ends_at_the_divergence_minimiser(form):
    """theta_0 != 0: argmin D_{psi_{Delta_0}}(., theta_0), both from the start that was given."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    path = gradient_flow(DEFAULT, u + v, u - v, math.inf, form=form, tol=1e-24)
    assert path.converged
    # theta_0 = u v and Delta_0 = |u^2 - v^2|, with nothing read off the path
    delta = (u * u - v * v).abs()
    oracle = dual_minimizer(DEFAULT, delta, torch.asinh(2 * u * v / delta))
    # the solver's local errors of 1e-9 in ln w, of a thousand steps
    torch.testing.assert_close(path.theta[-1], oracle, rtol=0, atol=1e-7)
    torch.testing.assert_close(path.theta[0], u * v, rtol=0, atol=1e-14)


def test_the_momentum_flow_tends_to_the_gradient_flow():
    times = torch.linspace(1.0, 20.0, 5, dtype=torch.float64)
    limit = gradient_flow(DEFAULT, W_0, W_0, 20.0, times=times).w_plus
    errors = [
        (momentum_flow(DEFAULT, W_0, W_0, lam, 20.0, times=times).w_plus - limit).abs().max()
        for lam in (2e-3, 1e-3, 5e-4)
    ]
    # linear in lambda, with corrections of relative size lambda
    assert [float(a / b) for a, b in pairwise(errors)] == pytest.approx([2, 2], rel=0.01)


@pytest.mark.parametrize("lam", [0.0, *LAMBDAS])
def test_energy_balance_and_bound(lam: float):
    path = momentum_flow(DEFAULT, W_0, W_0, lam, 60.0)
    spent = path.energy[0] - path.energy
    # the energy is of order 0.1; 1e-9 is the accuracy of the path
    torch.testing.assert_close(path.dissipated, spent, rtol=0, atol=1e-10)
    assert (path.energy.diff() < 1e-13).all()
    assert (path.dissipated <= path.loss[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "steps"),
    [(1e-3, 2500), (2.0, 900), pytest.param(10.0, 10_000, marks=pytest.mark.slow)],
)
def test_no_scale_makes_the_solver_crawl(alpha: float, steps: int):
    """Asked for less than the rounding of w', it would need ten times the steps of these bounds."""
    start = uniform_start(DEFAULT, alpha)
    path = momentum_flow(DEFAULT, start, start, 0.01, math.inf, tol=1e-20)
    assert path.converged
    assert len(path.t) < steps


def test_large_weights_are_as_accurate_as_small_ones():
    start, times = uniform_start(DEFAULT, 2.0), np.geomspace(0.01, 20.0, 20)
    path = momentum_flow(DEFAULT, start, start, 0.01, times[-1], times=torch.from_numpy(times))
    state = np.concatenate([start.numpy(), np.zeros(3 * DEFAULT.d)])
    # the documented accuracy, on both sides of the change of method at t = 1
    assert relative_error(path, solve_in_layers(DEFAULT, state, 0.01, times)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diabetes", "digits"])
@pytest.mark.parametrize("lam", [0.0, 0.01, 10.0])
def test_converges_on_real_data_too(kind: str, lam: float):
    problem = LOADERS[kind]()
    w = uniform_start(problem)
    path = momentum_flow(problem, w, w, lam, math.inf, tol=1e-20)
    assert path.converged
    assert path.loss[-1] <= path.energy[-1] <= 1e-20


def test_energy_is_waited_for_not_a_passing_zero_of_the_loss():
    # one equation, one effective unknown: the residual swings through zero many times
    problem = Problem(X=torch.ones(1, 2), y=torch.ones(1))
    w = torch.tensor([0.3, 0.3])
    path = momentum_flow(problem, w, w, 50.0, math.inf, tol=1e-12)
    assert path.t[-1] > 500
    assert path.energy[-1] <= 1e-12
    assert path.loss[path.t < 100].min() < 1e-2 * path.loss[path.t < 100].max()


def test_dense_output_is_the_path_itself():
    times = torch.tensor([0.0, 0.37, 5.0, 150.0, 200.0])
    served = momentum_flow(DEFAULT, W_0, W_0, 1.0, 250.0, times=times)
    torch.testing.assert_close(served.t[:-1].float(), times)
    assert served.t[-1] == 250.0
    for k in (1, 2, 3):
        ended_there = momentum_flow(DEFAULT, W_0, W_0, 1.0, float(times[k]))
        # the interpolation costs up to 1e-9 where steps are implicit
        torch.testing.assert_close(served.w_minus[k], ended_there.w_minus[-1], rtol=1e-8, atol=1e-9)


def test_both_methods_meet_at_the_switch():
    path = momentum_flow(DEFAULT, W_0, W_0, 0.5, 100.0)
    assert [report.method for report in path.solvers] == ["DOP853", "StructuredRadau"]
    assert sum(report.steps for report in path.solvers) == len(path.t) - 1
    assert (path.t.diff() > 0).all()


def test_sign_changes_are_counted_between_outputs():
    ends = momentum_flow(DEFAULT, W_0, W_0, 10.0, 100.0, times=torch.tensor([100.0]))
    full = momentum_flow(DEFAULT, W_0, W_0, 10.0, 100.0)
    seen = sum((w[1:] * w[:-1] < 0).sum(0) for w in (full.w_plus, full.w_minus))
    assert torch.equal(ends.sign_changes, torch.as_tensor(seen))
    assert ends.sign_changes.sum() > 0


def test_failure_is_a_status_with_the_path_so_far():
    path = momentum_flow(DEFAULT, W_0, W_0, 1.0, 50.0, options=FlowOptions(max_steps=20))
    assert path.status is FlowStatus.FAILED
    assert path.solvers[-1].message == f"more than 20 steps, at t = {path.t[-1]:.4g}"
    assert len(path.t) == 21
    assert path.w_plus.isfinite().all()


def test_a_long_integration_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", logger="dln_momentum"):
        momentum_flow(DEFAULT, W_0, W_0, 1.0, 1.0)
        assert not caplog.messages
        monkeypatch.setattr(stepping, "PROGRESS_INTERVAL", 0.0)
        path = momentum_flow(DEFAULT, W_0, W_0, 1.0, 1.0)
    assert len(caplog.messages) == len(path.t) - 1
    assert caplog.messages[-1] == f"flow: at t = 1 after {len(path.t) - 1} steps"


def test_a_start_that_interpolates_stays_there():
    start = (W_0 * W_0 + 4 * DEFAULT.theta_star.clamp(min=0)).sqrt()  # type: ignore[union-attr]
    other = (W_0 * W_0 + 4 * (-DEFAULT.theta_star).clamp(min=0)).sqrt()  # type: ignore[operator]
    path = momentum_flow(DEFAULT, start, other, 1.0, 10.0, tol=1e-25)
    assert path.converged
    assert path.t.tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lam": -1.0}, "lam = -1"),
        ({"lam": 0.0, "dw_plus_0": W_0}, "initial speed"),
        ({"time": 0.0}, "time = 0"),
        ({"time": math.inf}, "needs a tol"),
        ({"tol": -1.0}, "tol = -1"),
        ({"times": torch.tensor([2.0, 1.0])}, "increasing"),
        ({"times": torch.tensor([2.0, 90.0])}, "increasing, in [0, 5]"),
        ({"w_plus_0": W_0[:5]}, "w_plus_0 has shape (5,)"),
        ({"w_minus_0": W_0 / 0}, "not finite"),
        ({"options": FlowOptions(rtol=1e-20)}, "rtol"),
        ({"options": FlowOptions(max_steps=0)}, "max_steps"),
        ({"options": FlowOptions(method="euler")}, "method"),  # type: ignore[arg-type]
    ],
)
def test_refuses(change: dict, word: str):
    good = {"w_plus_0": W_0, "w_minus_0": W_0, "lam": 1.0, "time": 5.0}
    with pytest.raises(InputError) as refusal:
        momentum_flow(DEFAULT, **(good | change))
    assert word in str(refusal.value)


def test_gradient_flow_refuses_what_it_has_not():
    with pytest.raises(InputError, match="mirror or direct"):
        gradient_flow(DEFAULT, W_0, W_0, 1.0, form="dual")  # type: ignore[arg-type]

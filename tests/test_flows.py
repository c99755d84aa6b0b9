"""Many momentum flows at once: their order, their errors and estimates, and what is read off them.

Agreement is with single flows by SciPy (`momentum_flow`), which have an error of about 1e-11 here
and below 1e-9 anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dln_momentum import (
    EngineOptions,
    FlowPath,
    Flows,
    InputError,
    Problem,
    momentum_flow,
    momentum_flows,
    sparse,
)
from dln_momentum.flows import FlowStatus
from dln_momentum.flows.batched.leapfrog import PhasePoint, leapfrog
from dln_momentum.flows.batched.richardson import LEVELS, ORDER, take_macro_steps, weights
from dln_momentum.flows.batched.stability import SAFETY, stable_step
from dln_momentum.problem import stack
from dln_momentum.theory.continuous_bias import limit_bias, path_integrals, running_bias
from tests.flow_oracles import solve_in_layers, uniform_start
from tests.helpers import column

DEFAULT = sparse(20, 30, 3)
W_0 = uniform_start(DEFAULT)
ENGINE = EngineOptions(tol=0.0, divergence_bound=math.inf)
LAMBDAS = column(1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


def distance(flows: Flows, run: int, path: FlowPath) -> float:
    """The largest entry of the difference of w over that of w, at the last time."""
    ends = [torch.cat([p.w_plus[-1], p.w_minus[-1]], -1) for p in (flows, path)]
    return float((ends[0][run] - ends[1]).abs().max() / ends[1].abs().max())


def slope(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def at_rest(runs: int = 1) -> PhasePoint:
    w = W_0.expand(2, runs, -1)
    return PhasePoint(torch.stack([w, w]), torch.zeros(runs, DEFAULT.d, dtype=torch.float64))


def errors(lam: float, time: float, counts: list[int], arrive: Callable[[int], PhasePoint]):
    """Errors of (u, v) and of G, over the counts of steps."""
    state = np.concatenate([W_0.numpy(), np.zeros(3 * DEFAULT.d)])
    u, v = solve_in_layers(DEFAULT, state, lam, np.array([time]), rtol=1e-13).reshape(2, -1)
    G = momentum_flow(DEFAULT, W_0, W_0, lam, time).G[-1]
    ends = [arrive(count) for count in counts]
    w = torch.from_numpy(np.stack([u + v, u - v]))
    return (
        [float((end.w[:, 0] - w).abs().max()) for end in ends],
        [float((end.G[0] - G).abs().max()) for end in ends],
    )


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_leapfrog_is_of_order_two(lam: float):
    time, counts = 5 * math.sqrt(lam), [20, 40, 80, 160]

    def arrive(count: int) -> PhasePoint:
        return leapfrog(DEFAULT, column(lam), at_rest(), column(time / count), count, ENGINE)[0]

    # the next power, (1/20)^2, moves a slope by a few hundredths
    for found in errors(lam, time, counts, arrive):
        assert slope([1 / count for count in counts], found) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("lam", [0.5, 1.0, 5.0])
def test_a_segment_is_of_order_eight(lam: float):
    time, counts = 10 * math.sqrt(lam), [3, 4, 6, 8]

    def arrive(count: int) -> PhasePoint:
        nothing = torch.zeros(2, 2, 1, DEFAULT.d, dtype=torch.float64)
        one = torch.zeros(1, dtype=torch.int64)
        args = at_rest(), nothing, column(time), count, ENGINE
        return take_macro_steps(DEFAULT, one, column(lam), *args).end

    in_w, in_G = errors(lam, time, counts, arrive)
    # from 1e-6 to 1e-12: the next power, and rounding, move the slope by a few tenths
    for found in (in_w, in_G):
        assert slope([1 / count for count in counts], found) == pytest.approx(ORDER, abs=0.5)


def test_weights_cancel_even_powers():
    w, n = np.array(weights(LEVELS)), np.array(LEVELS, dtype=float)
    powers = [float((w * n ** (-2 * k)).sum()) for k in range(len(LEVELS))]
    np.testing.assert_allclose(powers, [1] + [0] * (len(LEVELS) - 1), atol=1e-13)


def test_an_eps_of_twice_lambda_loses_nothing():
    """There beta = 0, at which heavy ball has no memory of w_0."""
    lam, rng = 0.5, torch.Generator().manual_seed(0)
    start = PhasePoint(torch.rand(2, 2, 3, 30, generator=rng, dtype=torch.float64), at_rest(3).G)
    eps = 2 * lam * column(1 - 1e-9, 1.0, 1 + 1e-9)
    same = PhasePoint(start.values[:, :, :1].expand(-1, -1, 3, -1), start.G)
    end, _ = leapfrog(DEFAULT, lam * column(1, 1, 1), same, eps, 3, ENGINE)
    # three steps of nearly one size: the middle one lies between its neighbours
    middle = (end.values[:, :, 0] + end.values[:, :, 2]) / 2
    torch.testing.assert_close(end.values[:, :, 1], middle, rtol=1e-11, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(-0.5, 1))
def test_the_stable_step_against_an_eigenvalue(seed: int, scale: float):
    rng, H = torch.Generator().manual_seed(seed), DEFAULT.X.mT @ DEFAULT.X / DEFAULT.n
    w = 10**scale * torch.randn(2, 1, DEFAULT.d, generator=rng, dtype=torch.float64)
    g = DEFAULT.gradient((w[0] + w[1]) * (w[0] - w[1]) / 4)[0]
    D = torch.cat([torch.diag(w[0, 0]), -torch.diag(w[1, 0])])
    mu = torch.linalg.eigvalsh(torch.diag(torch.cat([g, -g])) + D @ H @ D.mT / 2).max()
    found = stable_step(DEFAULT, w, column(2.0)) / SAFETY
    # a power iteration comes from below, so the step from above; these w have no structure at all
    ratio = float(found / (2 * math.sqrt(2 / mu)))
    assert 1 - 1e-9 < ratio < 1.25


@pytest.fixture(scope="module")
def flows() -> Flows:
    return momentum_flows(DEFAULT, W_0, W_0, LAMBDAS, 100.0)


@pytest.mark.parametrize("run", range(len(LAMBDAS)))
def test_agrees_with_a_single_flow(flows: Flows, run: int):
    path = momentum_flow(DEFAULT, W_0, W_0, float(LAMBDAS[run]), 100.0)
    error, estimate = distance(flows, run, path), float(flows.error_estimate[-1, run])
    assert error < 2e-10
    # 1e-10 is the reference's share
    assert error < estimate + 1e-10
    assert estimate < 1e-8
    torch.testing.assert_close(flows.G[-1, run], path.G[-1], rtol=0, atol=1e-8)
    torch.testing.assert_close(flows.dw_plus[-1, run], path.dw_plus[-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(flows.energy[-1, run], path.energy[-1], rtol=1e-7, atol=0)
    assert flows.sign_changes[run] == path.sign_changes.sum()
    assert flows.t[:, run].tolist() == [0.0, 100.0]
    assert flows.status[run] is FlowStatus.TIME_REACHED


@pytest.mark.slow
def test_errors_and_estimates_over_many_lambda():
    lam = torch.logspace(-3, 2, 60, dtype=torch.float64)
    flows = momentum_flows(DEFAULT, W_0, W_0, lam, 500.0)
    paths = [momentum_flow(DEFAULT, W_0, W_0, float(value), 500.0) for value in lam]
    found = torch.tensor([distance(flows, run, path) for run, path in enumerate(paths)])
    assert found.max() < 1e-9
    assert (found < flows.error_estimate[-1] + 1e-10).all()
    assert flows.error_estimate[-1].max() < 1e-8


def test_rtol_sets_the_error():
    ends = [momentum_flows(DEFAULT, W_0, W_0, LAMBDAS, 50.0, rtol=rtol) for rtol in (1e-5, 1e-12)]
    loose, tight = (torch.stack([flows.w_plus[-1], flows.w_minus[-1]]) for flows in ends)
    error = (loose - tight).abs().amax((0, 2)) / tight.abs().amax((0, 2))
    # an estimate of order 6 for what is of order 8, and rounding
    assert (error < 1e-5).all()
    assert (error < ends[0].error_estimate[-1] + 1e-12).all()
    assert (ends[0].steps < ends[1].steps).all()


@pytest.mark.parametrize("lam", [1.0, 10.0])
def test_asymptotic_balancedness_with_sign_changes(lam: float):
    flows = momentum_flows(DEFAULT, W_0, W_0, column(0.01, lam), math.inf, tol=1e-21)
    assert flows.converged.all()
    assert lam < 4 or flows.sign_changes[1] > 0
    bias = limit_bias(flows)
    assert bias.balancedness.shape == (2, DEFAULT.d)
    torch.testing.assert_close(bias.balancedness, flows.balancedness[-1], rtol=1e-6, atol=0)
    # the same from a single flow; ln|w| near a sign change is worth fewer digits than w
    single = limit_bias(momentum_flow(DEFAULT, W_0, W_0, lam, math.inf, tol=1e-21))
    for name in ("i_plus", "i_minus", "log_init"):
        expected = getattr(single, name)
        torch.testing.assert_close(getattr(bias, name)[1], expected, rtol=1e-7, atol=1e-7)


def test_bias_on_the_way(flows: Flows):
    running = running_bias(flows)
    torch.testing.assert_close(running.balancedness, flows.balancedness, rtol=1e-8, atol=0)
    path = momentum_flow(DEFAULT, W_0, W_0, 0.1, 100.0)
    for many, one in zip(path_integrals(flows), path_integrals(path), strict=True):
        torch.testing.assert_close(many[-1, 2], one[-1], rtol=1e-8, atol=1e-9)


def test_one_flow_is_as_good_as_many(flows: Flows):
    for run in range(len(LAMBDAS)):
        one = momentum_flows(DEFAULT, W_0, W_0, LAMBDAS[run : run + 1], 100.0)
        # matrix products round differently by the number of runs
        torch.testing.assert_close(
            one.w_plus[:, 0], flows.w_plus[:, run], rtol=0, atol=1e-9 * float(flows.w_plus.max())
        )


def test_a_problem_a_start_and_a_speed_for_each_flow():
    problems = [sparse(6, 10, 2, seed=seed) for seed in range(3)]
    rng = torch.Generator().manual_seed(0)
    w_plus, w_minus, dw_plus, dw_minus = 0.3 + torch.rand(
        4, 3, 10, generator=rng, dtype=torch.float64
    )
    lam, time = column(0.02, 0.5, 8.0), column(5.0, 10.0, 20.0)
    flows = momentum_flows(
        stack(problems), w_plus, w_minus, lam, time, dw_plus_0=dw_plus, dw_minus_0=-dw_minus
    )
    assert flows.t[-1].tolist() == time.tolist()
    for run, problem in enumerate(problems):
        path = momentum_flow(
            problem,
            w_plus[run],
            w_minus[run],
            float(lam[run]),
            float(time[run]),
            dw_plus_0=dw_plus[run],
            dw_minus_0=-dw_minus[run],
        )
        assert distance(flows, run, path) < 2e-9
        torch.testing.assert_close(flows.loss[-1, run], path.loss[-1], rtol=1e-7, atol=1e-15)


def test_output_times():
    lam, times = column(0.01, 1.0, 20.0), torch.linspace(0.5, 30.0, 12, dtype=torch.float64)
    flows = momentum_flows(DEFAULT, W_0, W_0, lam, times[:, None])
    assert flows.w_plus.shape == (13, 3, 30)
    assert flows.t[1:, 1].tolist() == times.tolist()
    for run, value in enumerate(lam.tolist()):
        path = momentum_flow(DEFAULT, W_0, W_0, value, 30.0, times=times)
        for name in ("w_plus", "w_minus", "dw_plus", "G"):
            torch.testing.assert_close(
                getattr(flows, name)[:, run], getattr(path, name), rtol=0, atol=2e-9
            )
    own = torch.stack([times, times / 2, times / 3], -1)
    assert torch.equal(momentum_flows(DEFAULT, W_0, W_0, lam, own).t[1:], own)


def test_a_flow_that_has_converged_stays_where_it_is():
    lam, times = column(1.0, 1.0), column(200.0, 1e4, 2e4)[:, None]
    W = torch.stack([W_0, 3 * W_0])
    flows = momentum_flows(DEFAULT, W, W, lam, times, tol=1e-12)
    assert flows.converged.all()
    assert (flows.energy[-1] <= 1e-12).all()
    assert (flows.t[-1] < 1e4).all()
    assert torch.equal(flows.w_plus[-2], flows.w_plus[-1])


def test_a_failure_is_a_status():
    flows = momentum_flows(DEFAULT, W_0, W_0, column(1e-3, 10.0), 300.0, max_steps=5000)
    assert flows.status == (FlowStatus.FAILED, FlowStatus.TIME_REACHED)
    assert 0 < flows.t[-1, 0] < 300
    assert flows.steps.max() <= 5000
    path = momentum_flow(DEFAULT, W_0, W_0, 1e-3, float(flows.t[-1, 0]))
    assert distance(flows, 0, path) < 1e-9
    assert "'failed': 1" in repr(flows)


def test_kernels_agree():
    ends = [
        momentum_flows(DEFAULT, W_0, W_0, column(0.1, 3.0), 10.0, options=options).w_plus[-1]
        for options in (EngineOptions(backend="torch"), EngineOptions(backend="auto"))
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def test_invalid_input_is_listed():
    two = column(1.0, 2.0)
    with pytest.raises(InputError) as caught:
        momentum_flows(
            stack([DEFAULT] * 3),
            W_0[:-1],
            torch.zeros_like(W_0),
            column(1.0, -1.0),
            math.inf,
            dw_plus_0=torch.full_like(W_0, torch.nan),
            rtol=0.0,
            max_steps=0,
        )
    for text in (
        "problem has run dimensions [3], must have none or [2]",
        "lam = -1 (1 of 2) must be in (0, 1e+12]",
        "w_plus_0 has shape (29,), must be (30,) or (2, 30)",
        "w_minus_0 has entries that are zero",
        "dw_plus_0 has entries that are not finite",
        "time = inf needs a tol",
        "rtol = 0 must be in [1e-13, 1)",
        "max_steps = 0 must be >= 1",
    ):
        assert text in str(caught.value)
    for time, text in (
        (torch.ones(3), r"time has shape \(3,\)"),
        (column(2.0, 1.0)[:, None], "increasing"),
        (-1.0, "time = -1 must be > 0"),
    ):
        with pytest.raises(InputError, match=text):
            momentum_flows(DEFAULT, W_0, W_0, two, time)
    with pytest.raises(InputError, match="tol = 0"):
        momentum_flows(DEFAULT, W_0, W_0, two, 1.0, tol=0.0)
    with pytest.raises(InputError, match=r"lam has shape \(\)"):
        momentum_flows(DEFAULT, W_0, W_0, torch.tensor(1.0), 1.0)


def test_a_flow_with_speed_leaves_an_interpolator() -> None:
    """Its loss is 0 at the start, and it has far to go."""
    problem = Problem(torch.tensor([[1.0, 2.0]]), torch.tensor([0.0]))
    w, still = torch.full((2,), 0.5).double(), torch.zeros(2, dtype=torch.float64)
    speed = torch.tensor([1.0, 0.5]).double()
    one = momentum_flow(problem, w, w, 1.0, 3.0, dw_plus_0=speed, dw_minus_0=still)
    lam = torch.ones(1).double()
    many = momentum_flows(problem, w, w, lam, 3.0, dw_plus_0=speed, dw_minus_0=still)
    # the default accuracy of the flows, 1e-9 of the largest entry
    torch.testing.assert_close(many.w_plus[-1, 0], one.w_plus[-1], rtol=0, atol=1e-9)
    assert (one.w_plus[-1] - w).abs().max() > 0.5


def test_a_time_given_as_a_number_is_not_rounded() -> None:
    """`torch.as_tensor` of a Python float is a float32 unless it is told otherwise."""
    w, lam = uniform_start(DEFAULT), torch.tensor([0.3, 1.0], dtype=torch.float64)
    plain = momentum_flows(DEFAULT, w, w, lam, 1.1)
    tensor = momentum_flows(DEFAULT, w, w, lam, torch.tensor(1.1, dtype=torch.float64))
    assert plain.t[-1].tolist() == [1.1, 1.1]
    # the same code on the same numbers in one process: bit for bit
    assert torch.equal(plain.w_plus, tensor.w_plus)
    assert torch.equal(plain.w_minus, tensor.w_minus)
    assert torch.equal(plain.G, tensor.G)
    listed = momentum_flows(DEFAULT, w, w, lam, [[0.7], [1.1]])  # type: ignore[arg-type]
    assert listed.t[1:, 0].tolist() == [0.7, 1.1]

"""Guarantees for a small lambda, and the limit of Delta_inf as lambda -> 0.

(docs/theory.md#small-lambda; poster, section 4.)
"""

from __future__ import annotations

import math

import torch

from dln_momentum.flows import FlowPath
from dln_momentum.flows.trajectory import RecordedTrajectory, largest_rtol, solver_error
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.small_lambda import (
    balance_drift_bound,
    lambda_threshold,
    small_lambda_balancedness,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import at_rest, converged
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal

SMALL = 0.1
"""lambda times the largest curvature below which the expansion in lambda is in its range."""

RESOLVED = 0.1
"""Errors of the solver in ln Delta_inf at small lambda, over its rtol: at 1e-9 the error of the
formula was seen to halve with lambda, within 2 %, down to 6e-9."""


def written_bounds(m: Measurements) -> Statement:
    """The threshold and the bound of the drift, against n min Delta_0/||X theta_0 - y||^2.

    On most data neither is attained, so that no path shows an error by a factor.
    """
    setting = m.setting
    residual = setting.problem.X @ setting.theta - setting.problem.y
    threshold = setting.problem.n * float(setting.balancedness.min()) / float(residual @ residual)
    drift = m.lam * float(residual @ residual) / setting.problem.n
    found = float(lambda_threshold(setting.problem, setting.w_plus, setting.w_minus))
    bound = float(balance_drift_bound(m.lam, m.momentum_path.loss[0]))
    return equal(
        "min Delta_0/(2 F(w_0)) = n/||X theta_0 - y||^2 min Delta_0; 2 lambda F(w_0) likewise",
        4,
        predicted=threshold,
        measured=found,
        error=torch.tensor([found / threshold - 1, bound / drift - 1], dtype=torch.float64).abs(),
        # a sum of squares in another order
        tolerance=1e-13 * setting.problem.n,
    )


def bounded_drift(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """|q_t - q_0| <= 2 lambda F(w_0) for q = u^2 - v^2, summed over the coordinates."""
    path, setting = m.momentum_path, m.setting
    bound = float(balance_drift_bound(path.lam, setting.loss))
    drift = (path.w[0] * path.w[1] - setting.w[0] * setting.w[1]).abs().sum(-1)
    return at_most(
        "MGF: sum_i |q_(t,i) - q_(0,i)| <= 2 lambda F(w_0) at every t, q = u^2 - v^2",
        4,
        [at_rest(m)],
        predicted=bound,
        measured=drift.max(),
        # relative to the bound, which may be far below q itself
        tolerance=solver_error(path) * (1 + float(setting.balancedness.sum() / bound)),
        judged=trajectory.part,
    )


def threshold(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Below lambda = min Delta_0/(2 F(w_0)) no balancedness ever vanishes."""
    path, setting = m.momentum_path, m.setting
    limit = float(lambda_threshold(setting.problem, setting.w_plus, setting.w_minus))
    # relative to its start, with its sign: negative once w_+ or w_- has crossed zero
    lowest = (path.w[0] * path.w[1] / (setting.w[0] * setting.w[1])).min()
    guaranteed = 1 - m.lam / limit
    missing = guaranteed - float(lowest)
    return Statement(
        "MGF: Delta_t >= Delta_0 - 2 lambda F(w_0) > 0, no sign change (least Delta_t/Delta_0)",
        4,
        (
            at_rest(m),
            Hypothesis("lambda < min Delta_0/(2 F(w_0))", guaranteed > 0, f"which is {limit:.3g}"),
        ),
        ">=",
        guaranteed,
        float(lowest),
        (0.0 if missing <= 0 else missing) + int(path.sign_changes.sum()),
        solver_error(path),
        trajectory.part,
    )


def asymptotics(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Delta_inf ~ Delta_0 exp(-2 lambda int (grad L)^2), with an exponent good to O(lambda^2).

    The errors of the exponent at lambda and at lambda/2 must be as 4 to 1.
    """
    scale = m.lam * m.curvature
    product = f"their product is {scale:.2g}"
    small = Hypothesis("lambda < 0.1 / the largest curvature of F", scale <= SMALL, product)
    ended = m.gradient_path
    flow = Hypothesis("the gradient flow converged", ended.converged, f"{ended.status.value}")
    name = "MGF: ln(Delta_inf/Delta_0) = -2 lambda int (grad L)^2 + O(lambda^2): order of the rest"
    hypotheses = (at_rest(m), small, converged(trajectory), flow)
    if not all(hypothesis.met for hypothesis in hypotheses):
        return Statement(name, 4, hypotheses, predicted=2.0)
    error = _exponent_error(m, m.momentum_path)
    half = _exponent_error(m, m.momentum_flow(m.lam / 2))
    resolved = RESOLVED * largest_rtol(m.momentum_path)
    return equal(
        name,
        4,
        hypotheses,
        predicted=2.0,
        measured=math.log2(error / half) if half else math.nan,
        # the next order adds a multiple of lambda times the curvature to each of the two errors
        tolerance=0.05 + 2 * scale + 2 * resolved / half if half else math.inf,
    )


def _exponent_error(m: Measurements, path: FlowPath) -> float:
    """The largest difference of the formula's ln(Delta_0/Delta_inf) and the measured one."""
    estimate = small_lambda_balancedness(m.gradient_path, path.lam)
    measured = limit_bias(path).balancedness
    return float((estimate / measured).log().abs().max())

"""What a small lambda guarantees, and the limit of Delta_inf as lambda -> 0.

(docs/theory.md#small-lambda; poster, section 4.)
"""

from __future__ import annotations

import math

import torch

from dln_momentum.flows import FlowPath
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.small_lambda import (
    balance_drift_bound,
    lambda_threshold,
    small_lambda_balancedness,
)
from dln_momentum.theory.trajectory import Trajectory, loosest, solver_error
from dln_momentum.verification.course import at_rest, converged
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal

SMALL = 0.1
"""lambda times the largest curvature below which the expansion in lambda is in its range."""

RESOLVED = 0.1
"""Errors of the solver in ln Delta_inf at small lambda, over its rtol: at 1e-9 the error of the
formula was seen to halve with lambda, within 2 %, down to 6e-9."""


def written_bounds(evidence: Evidence) -> Statement:
    """The threshold and the bound of the drift, against n min Delta_0/||X theta_0 - y||^2.

    On most data both are far from being attained, so that no path finds them off by a factor.
    """
    case = evidence.case
    residual = case.problem.X @ case.theta - case.problem.y
    threshold = case.problem.n * float(case.balancedness.min()) / float(residual @ residual)
    drift = evidence.lam * float(residual @ residual) / case.problem.n
    found = float(lambda_threshold(case.problem, case.w_plus, case.w_minus))
    bound = float(balance_drift_bound(evidence.lam, evidence.momentum_path.loss[0]))
    return equal(
        "min Delta_0/(2 F(w_0)) = n/||X theta_0 - y||^2 min Delta_0; 2 lambda F(w_0) likewise",
        4,
        predicted=threshold,
        measured=found,
        error=torch.tensor([found / threshold - 1, bound / drift - 1], dtype=torch.float64).abs(),
        # a sum of squares in another order
        tolerance=1e-13 * case.problem.n,
    )


def bounded_drift(evidence: Evidence, course: Trajectory) -> Statement:
    """|q_t - q_0| <= 2 lambda F(w_0) for q = u^2 - v^2, summed over the coordinates."""
    path, case = evidence.momentum_path, evidence.case
    bound = float(balance_drift_bound(path.lam, case.loss))
    drift = (path.w_plus * path.w_minus - case.w[0] * case.w[1]).abs().sum(-1)
    return at_most(
        "MGF: sum_i |q_(t,i) - q_(0,i)| <= 2 lambda F(w_0) at every t, q = u^2 - v^2",
        4,
        [at_rest(evidence)],
        predicted=bound,
        measured=drift.max(),
        # relative to the bound, which may be far below q itself
        tolerance=solver_error(path) * (1 + float(case.balancedness.sum() / bound)),
        judged=course.part,
    )


def threshold(evidence: Evidence, course: Trajectory) -> Statement:
    """Below lambda = min Delta_0/(2 F(w_0)) no balancedness ever vanishes."""
    path, case = evidence.momentum_path, evidence.case
    limit = float(lambda_threshold(case.problem, case.w_plus, case.w_minus))
    # relative to its start, with its sign: negative once w_+ or w_- has crossed zero
    lowest = (path.w_plus * path.w_minus / (case.w[0] * case.w[1])).min()
    guaranteed = 1 - evidence.lam / limit
    missing = guaranteed - float(lowest)
    return Statement(
        "MGF: Delta_t >= Delta_0 - 2 lambda F(w_0) > 0, no sign change (least Delta_t/Delta_0)",
        4,
        (
            at_rest(evidence),
            Hypothesis("lambda < min Delta_0/(2 F(w_0))", guaranteed > 0, f"which is {limit:.3g}"),
        ),
        ">=",
        guaranteed,
        float(lowest),
        (0.0 if missing <= 0 else missing) + int(path.sign_changes.sum()),
        solver_error(path),
        course.part,
    )


def asymptotics(evidence: Evidence, course: Trajectory) -> Statement:
    """Delta_inf ~ Delta_0 exp(-2 lambda int (grad L)^2), with an exponent good to O(lambda^2).

    The errors of the exponent at lambda and at lambda/2 must be as 4 to 1.
    """
    scale = evidence.lam * evidence.curvature
    product = f"their product is {scale:.2g}"
    small = Hypothesis("lambda < 0.1 / the largest curvature of F", scale <= SMALL, product)
    ended = evidence.gradient_path
    flow = Hypothesis("the gradient flow converged", ended.converged, f"{ended.status.value}")
    name = "MGF: ln(Delta_inf/Delta_0) = -2 lambda int (grad L)^2 + O(lambda^2): order of the rest"
    hypotheses = (at_rest(evidence), small, converged(course), flow)
    if not all(hypothesis.met for hypothesis in hypotheses):
        return Statement(name, 4, hypotheses, predicted=2.0)
    error = _exponent_error(evidence, evidence.momentum_path)
    half = _exponent_error(evidence, evidence.momentum_flow(evidence.lam / 2))
    resolved = RESOLVED * loosest(evidence.momentum_path)
    return equal(
        name,
        4,
        hypotheses,
        predicted=2.0,
        measured=math.log2(error / half) if half else math.nan,
        # the next order adds a share of lambda times the curvature to each of the two errors
        tolerance=0.05 + 2 * scale + 2 * resolved / half if half else math.inf,
    )


def _exponent_error(evidence: Evidence, path: FlowPath) -> float:
    """The largest difference of the formula's ln(Delta_0/Delta_inf) and the measured one."""
    estimate = small_lambda_balancedness(evidence.gradient_path, path.lam)
    measured = limit_bias(path).balancedness
    return float((estimate / measured).log().abs().max())

"""What a small lambda guarantees, and the limit of Delta_inf as lambda -> 0.

(docs/theory.md#small-lambda; poster, section 4.)
"""

from __future__ import annotations

import math

from dln_momentum.flow import (
    FlowPath,
    balance_drift,
    balance_drift_bound,
    lambda_threshold,
    limit_bias,
    small_lambda_balancedness,
)
from dln_momentum.verification.course import Course, loosest, solver_error
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal

SMALL = 0.1
"""lambda times the largest curvature below which the expansion in lambda is in its range."""

RESOLVED = 0.1
"""Errors of the solver in ln Delta_inf at small lambda, over its rtol: at 1e-9 the error of the
formula was seen to halve with lambda, within 2 %, down to 6e-9."""


def bounded_drift(evidence: Evidence) -> Statement:
    """|q_t - q_0| <= 2 lambda F(w_0) for q = u^2 - v^2, summed over the coordinates."""
    path = evidence.momentum_path
    bound = float(balance_drift_bound(path.lam, path.loss[0]))
    return at_most(
        "MGF: sum_i |q_(t,i) - q_(0,i)| <= 2 lambda F(w_0) at every t, q = u^2 - v^2",
        4,
        predicted=bound,
        measured=balance_drift(path).sum(-1).max(),
        # relative to the bound, which may be far below q itself
        tolerance=solver_error(path) * (1 + float(path.balancedness[0].sum() / bound)),
    )


def threshold(evidence: Evidence, course: Course) -> Statement:
    """Below lambda = min Delta_0/(2 F(w_0)) no balancedness ever vanishes."""
    path, case = evidence.momentum_path, evidence.case
    limit = float(lambda_threshold(case.problem, case.w_plus, case.w_minus))
    q = path.w_plus * path.w_minus
    # relative to its start, with its sign: negative once w_+ or w_- has crossed zero
    lowest = (q / q[0]).min()
    guaranteed = 1 - evidence.lam / limit
    missing = guaranteed - float(lowest)
    return Statement(
        "MGF: Delta_t >= Delta_0 - 2 lambda F(w_0) > 0, no sign change (least Delta_t/Delta_0)",
        4,
        (Hypothesis("lambda < min Delta_0/(2 F(w_0))", guaranteed > 0, f"which is {limit:.3g}"),),
        ">=",
        guaranteed,
        float(lowest),
        (0.0 if missing <= 0 else missing) + int(course.sign_changes[-1]),
        solver_error(path),
    )


def asymptotics(evidence: Evidence, course: Course) -> Statement:
    """Delta_inf ~ Delta_0 exp(-2 lambda int (grad L)^2), with an exponent good to O(lambda^2).

    The errors of the exponent at lambda and at lambda/2 must be as 4 to 1.
    """
    scale = evidence.lam * evidence.curvature
    product = f"their product is {scale:.2g}"
    small = Hypothesis("lambda < 0.1 / the largest curvature of F", scale <= SMALL, product)
    flow = Hypothesis("the gradient flow converged", evidence.gradient_path.converged)
    name = "MGF: ln(Delta_inf/Delta_0) = -2 lambda int (grad L)^2 + O(lambda^2): order of the rest"
    hypotheses = (small, course.converged, flow)
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

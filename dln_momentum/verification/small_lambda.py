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
    descent_modulus,
    discrete_drift_bound,
    discrete_threshold,
    lambda_threshold,
    small_lambda_balancedness,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP, at_rest, converged, full_batch
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal

SMALL = 0.1
"""lambda times the largest curvature below which the expansion in lambda is in its range."""

WRITTEN = 200
"""Steps whose M is compared with its definition."""

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
    """|q_t - q_0| <= 2 lambda F(w_0) for q = u^2 - v^2, summed over the coordinates.

    (docs/theory.md#threshold.)
    """
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
    """Below lambda = min Delta_0/(2 F(w_0)) no balancedness ever vanishes.

    (docs/theory.md#threshold.)
    """
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


def written_discrete_bound(m: Measurements) -> Statement:
    """M of the steps, the discrete bound and the threshold, against their definitions.

    2 (F(w_{k+1}) - F(w_k) - <grad F(w_k), D_k>)/||D_k||^2 is evaluated as it is written, where the
    steps are long enough for the difference to have digits.
    """
    found, (K, M) = m.first_iterates, (m.momentum, m.descent_modulus)
    w = found[: min(len(found), WRITTEN)]
    u, v = (w[:, 0] + w[:, 1]) / 2, (w[:, 0] - w[:, 1]) / 2
    residual = (u * v) @ m.problem.X.T - m.problem.y
    loss, g = residual.square().sum(-1) / (2 * m.problem.n), residual @ m.problem.X / m.problem.n
    du, dv = u.diff(dim=0), v.diff(dim=0)
    size = (du.square() + dv.square()).sum(-1)
    slope = (g[:-1] * (v[:-1] * du + u[:-1] * dv)).sum(-1)
    # a run that has come to rest has steps of length 0, where M is 0
    size = torch.where(size > 0, size, torch.inf)
    written = 2 * (loss.diff() - slope) / size
    formula = descent_modulus(m.problem, w[:-1].movedim(1, 0), w[1:].movedim(1, 0))
    # rounding of both losses, whose residuals are differences of numbers of the size of y
    sizes = residual.square().sum(-1).sqrt() * m.problem.y.norm() / m.problem.n
    lost = 16 * ULP * (sizes[:-1] + sizes[1:] + slope.abs()) / size / (1 + formula.abs())
    # a run that blows up has an infinite M; there the hypothesis fails, and nothing is bounded
    left = 1 - K.eps * max(M, 0.0) / 2
    bound = 2 * K.lam_ks * m.setting.loss / left if left > 0 else math.inf
    least = float(m.setting.balancedness.min())
    limit = least / (2 * m.setting.loss) * max(left, 0.0)
    found_bound = discrete_drift_bound(K.lam_ks, K.eps, m.setting.loss, M)
    found_limit = discrete_threshold(least, K.eps, m.setting.loss, M)
    pairs = ((found_bound, bound), (found_limit, limit))
    ratios = loss.new_tensor(
        [0.0 if a == b else abs(a - b) / max(abs(b), 1e-300) for a, b in pairs]
    )
    return equal(
        "M of a step = 2 (F(w_(k+1)) - F(w_k) - <grad F, D_k>)/||D_k||^2; bounds at finite steps",
        4,
        _discrete_premises(m),
        predicted=bound,
        measured=found_bound,
        error=torch.cat([(written - formula).abs() / (1 + formula.abs()), ratios]),
        tolerance=torch.cat([1e-9 + lost, torch.full_like(ratios, 1e-9)]),
        judged=f"for k <= {len(w) - 1}",
    )


def discrete_drift(m: Measurements) -> Statement:
    """sum_i |q_{k,i} - q_{0,i}| <= 2 lambda_KS F(w_0)/(1 - eps M/2) at every step, full batch.

    (docs/theory.md#discrete-threshold-steps.)
    """
    w, setting = m.first_iterates, m.setting
    q = w[:, 0] * w[:, 1]
    bound = discrete_drift_bound(m.momentum.lam_ks, m.momentum.eps, setting.loss, m.descent_modulus)
    drift = (q - setting.w[0] * setting.w[1]).abs().sum(-1)
    return at_most(
        "MGD: sum_i |q_(k,i) - q_(0,i)| <= 2 lambda_KS F(w_0)/(1 - eps M/2) at every k",
        4,
        _discrete_premises(m),
        predicted=bound,
        measured=drift.max(),
        # an ulp of q a step
        tolerance=ULP * len(w) * float(setting.balancedness.sum() / bound),
        judged=_judged(m),
    )


def discrete_threshold_holds(m: Measurements) -> Statement:
    """Below the threshold no Delta_k vanishes: q_k keeps the sign of q_0.

    (docs/theory.md#discrete-threshold.)
    """
    w, setting = m.first_iterates, m.setting
    limit = discrete_threshold(
        float(setting.balancedness.min()), m.momentum.eps, setting.loss, m.descent_modulus
    )
    lowest = float((w[:, 0] * w[:, 1] / (setting.w[0] * setting.w[1])).min())
    guaranteed = 1 - m.momentum.lam_ks / limit if limit > 0 else -math.inf
    below = Hypothesis(
        "lambda_KS < (1 - eps M/2) min Delta_0/(2 F(w_0))", guaranteed > 0, f"which is {limit:.3g}"
    )
    return Statement(
        "MGD: Delta_k > 0, below the threshold of lambda_KS (least Delta_k/Delta_0)",
        4,
        (*_discrete_premises(m), below),
        ">=",
        guaranteed,
        lowest,
        max(guaranteed - lowest, 0.0),
        ULP * len(w),
        _judged(m),
    )


def _discrete_premises(m: Measurements) -> tuple[Hypothesis, ...]:
    product = m.momentum.eps * m.descent_modulus
    found = f"eps M = {product:.3g}, M the largest of all steps"
    small = Hypothesis("eps M < 2 on the segments of the path", product < 2, found)
    return full_batch(m), at_rest(m), small


def _judged(m: Measurements) -> str:
    """The part of the run whose steps were all looked at; empty if it converged within it."""
    return "" if m.iterates_converged else f"for k <= {len(m.first_iterates) - 1}"


def asymptotics(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Delta_inf ~ Delta_0 exp(-2 lambda int (grad L)^2), with an exponent good to O(lambda^2).

    (docs/theory.md#small-lambda-limit.)
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

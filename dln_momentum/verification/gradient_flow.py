"""Where gradient flow ends: from the start itself, and from the effective initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.flow import FlowPath, limit_bias
from dln_momentum.implicit_bias import log_init
from dln_momentum.problem import Problem
from dln_momentum.summary import distance, minimiser
from dln_momentum.verification.course import solver_error
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.implicit_bias import SOLVED, off_target
from dln_momentum.verification.statement import Hypothesis, Statement, equal


def gradient_flow_along(evidence: Evidence) -> Statement:
    """theta_t = argmin D_{psi_{Delta_0}}(., theta_0) over its level set, w_+- integrated."""
    path = evidence.direct_gradient_flow(evidence.case.w_plus, evidence.case.w_minus)
    target = evidence.problem.row_space.coordinates(path.theta[-1])
    return _compare(
        "GF: theta_t = argmin D_(psi, Delta_0)(., theta_0) over X theta = X theta_t",
        3,
        evidence.problem,
        path,
        target,
        [],
    )


def gradient_flow_limit(evidence: Evidence) -> Statement:
    """theta^GF = argmin { D_{psi_{Delta_0}}(theta, theta_0) : X theta = y }."""
    path = evidence.gradient_path
    name = "GF: theta_inf = argmin D_(psi, Delta_0)(., theta_0) over X theta = y"
    return _limit(name, 3, evidence, path, [])


def effective_start(evidence: Evidence) -> Statement:
    """From u = sqrt(Delta_inf), v = 0 gradient flow converges to argmin psi_{Delta_inf} over S."""
    balancedness = limit_bias(evidence.momentum_path).balancedness
    name = "GF from u = sqrt(Delta_inf), v = 0: theta_inf = argmin psi_(Delta_inf)"
    positive = Hypothesis(
        "0 < Delta_inf < inf",
        bool(((balancedness > 0) & balancedness.isfinite()).all()),
        f"from {float(balancedness.min()):.1e} to {float(balancedness.max()):.1e}",
    )
    if not positive.met:
        return Statement(name, 4, (positive,))
    w = balancedness.sqrt()
    return _limit(name, 4, evidence, evidence.gradient_flow(w, w), [positive])


def _limit(
    name: str, section: int, evidence: Evidence, path: FlowPath, hypotheses: list[Hypothesis]
) -> Statement:
    found = f"loss {float(path.loss[-1]):.1e} at t = {float(path.t[-1]):.6g}"
    hypotheses = [*hypotheses, Hypothesis("converged", path.converged, found)]
    problem = evidence.problem
    target = problem.row_space.target(problem.y)
    return _compare(name, section, problem, path, target, hypotheses)


def _compare(
    name: str,
    section: int,
    problem: Problem,
    path: FlowPath,
    target: Tensor,
    hypotheses: list[Hypothesis],
) -> Statement:
    """theta at the end of a gradient flow against argmin D_{psi_{Delta_0}}(., theta_0)."""
    theta, start = path.theta[-1], path.balancedness[0]
    zero = torch.zeros_like(theta)
    c = log_init(path.w_plus[0], path.w_minus[0], zero, zero)
    found = minimiser(problem, target, start[None], c[None])[0]
    size = torch.linalg.vector_norm(theta)
    # Delta does not move; the errors of the solver in ln|w_+-| shift c
    shift = math.sqrt(problem.d) * solver_error(path) * torch.hypot(2 * theta, start).max()
    allowed = off_target(problem, theta, start, target) + shift
    return equal(
        name,
        section,
        [
            *hypotheses,
            Hypothesis("the convex solver converged", bool(found.isfinite().all())),
        ],
        measured=distance(theta, found) / size,
        tolerance=SOLVED + allowed / size,
    )

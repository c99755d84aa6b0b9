"""Where gradient flow ends: from the start itself, and from the effective initialisation.

Delta_0 and theta_0 are those of the case, not of the path: a flow that starts elsewhere fails.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.flows import FlowPath
from dln_momentum.outputs.summary import distance, minimiser
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.entropy import mirror_map
from dln_momentum.theory.trajectory import LARGEST, SMALLEST, solver_error
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.implicit_bias import SOLVED, off_target, solved
from dln_momentum.verification.statement import Hypothesis, Statement, Times, equal


def gradient_flow_along(evidence: Evidence) -> Statement:
    """theta_t = argmin D_{psi_{Delta_0}}(., theta_0) over its level set, w_+- integrated."""
    path = evidence.explicit_gradient_path
    target = evidence.problem.row_space.coordinates(path.theta[-1])
    return _compare(
        "GF: theta_t = argmin D_(psi, Delta_0)(., theta_0) over X theta = X theta_t",
        3,
        evidence,
        path,
        target,
        _start(evidence),
        [start_in_range(evidence)],
        judged=_stretch(path),
    )


def mirror_descent(evidence: Evidence) -> Statement:
    """grad psi(theta_t) = grad psi(theta_0) - int_0^t grad L, with psi = psi_{Delta_0}.

    It fixes the normalisation of psi, which no minimiser does.
    """
    name = "GF: grad psi(theta_t) = grad psi(theta_0) - int grad L at every recorded t"
    path, case = evidence.explicit_gradient_path, evidence.case
    fine = start_in_range(evidence)
    if not fine.met:
        return Statement(name, 3, (fine,))
    image = mirror_map(path.theta, case.balancedness)
    error = image - mirror_map(case.theta, case.balancedness) + path.G
    # theta has an error of 1e-16 of w_+-^2, which the slope 1/sqrt(4 theta^2 + Delta^2) amplifies
    sizes = (path.w_plus.square() + path.w_minus.square()) / 4
    slope = 1 / torch.hypot(2 * path.theta, case.balancedness)
    allowed = solver_error(path) + 4e-16 * (sizes * slope).amax(-1)
    return equal(
        name,
        3,
        [fine],
        predicted=-path.G[-1].sum(),
        measured=(image[-1] - image[0]).sum(),
        error=error.abs().amax(-1),
        tolerance=allowed,
        times=Times("t", path.t, _stretch(path)),
    )


def gradient_flow_limit(evidence: Evidence) -> Statement:
    """theta^GF = argmin { D_{psi_{Delta_0}}(theta, theta_0) : X theta = y }."""
    name = "GF: theta_inf = argmin D_(psi, Delta_0)(., theta_0) over X theta = y"
    path = evidence.gradient_path
    return _limit(name, 3, evidence, path, _start(evidence), [start_in_range(evidence)])


def effective_start(evidence: Evidence) -> Statement:
    """From u = sqrt(Delta_inf), v = 0 gradient flow converges to argmin psi_{Delta_inf} over S.

    The flow starts from what `limit_bias` says; Delta_inf here is |w_+ w_-| where the momentum flow
    has ended, from which the first differs by the exponents of what is left of its speed.
    """
    name = "GF from u = sqrt(Delta_inf), v = 0: theta_inf = argmin psi_(Delta_inf)"
    flow = evidence.momentum_path
    ended = Hypothesis("the momentum flow converged", flow.converged, f"status {flow.status.value}")
    last = (flow.w_plus[-1] * flow.w_minus[-1]).abs()
    fine = Hypothesis(
        "Delta_inf is in the range of float64",
        _within(last),
        f"from {float(last.min()):.1e} to {float(last.max()):.1e}",
    )
    if not (ended.met and fine.met):
        return Statement(name, 4, (ended, fine))
    found = limit_bias(flow).balancedness
    if not bool(((found > 0) & found.isfinite()).all()):
        # of a flow that has converged within the range of float64 this is an impossible number
        return equal(name, 4, [ended, fine], measured=torch.nan, tolerance=SOLVED)
    left = flow.lam * (flow.dw_plus[-1] / flow.w_plus[-1] + flow.dw_minus[-1] / flow.w_minus[-1])
    return _limit(
        name, 4, evidence, evidence.effective_path, (last, torch.zeros_like(last)), [ended, fine],
        shift=float(left.abs().max()),
    )  # fmt: skip


def _start(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Delta_0 and the log form of theta_0."""
    return evidence.case.balancedness, evidence.case.log_init


def start_in_range(evidence: Evidence) -> Hypothesis:
    """The hypothesis that Delta_0 is in the range of float64."""
    delta = evidence.case.balancedness
    found = f"from {float(delta.min()):.1e} to {float(delta.max()):.1e}"
    return Hypothesis("Delta_0 is in the range of float64", _within(delta), found)


def _within(delta: Tensor) -> bool:
    return bool(((delta >= SMALLEST) & (delta <= LARGEST)).all())


def _stretch(path: FlowPath) -> str:
    return "" if path.converged else f"for t <= {float(path.t[-1]):.6g}, by the explicit method"


def _limit(
    name: str,
    section: int,
    evidence: Evidence,
    path: FlowPath,
    potential: tuple[Tensor, Tensor],
    hypotheses: list[Hypothesis],
    shift: float = 0.0,
) -> Statement:
    found = f"loss {float(path.loss[-1]):.1e} at t = {float(path.t[-1]):.6g}"
    hypotheses = [*hypotheses, Hypothesis("converged", path.converged, found)]
    target = evidence.problem.row_space.target(evidence.problem.y)
    return _compare(name, section, evidence, path, target, potential, hypotheses, shift=shift)


def _compare(
    name: str,
    section: int,
    evidence: Evidence,
    path: FlowPath,
    target: Tensor,
    potential: tuple[Tensor, Tensor],
    hypotheses: list[Hypothesis],
    *,
    shift: float = 0.0,
    judged: str = "",
) -> Statement:
    """theta at the end of a gradient flow against the minimiser of a potential (Delta, c).

    Args:
        shift: what ln Delta may be off by, beyond the errors of the solver.
    """
    if not all(hypothesis.met for hypothesis in hypotheses):
        return Statement(name, section, tuple(hypotheses))
    problem: Problem = evidence.problem
    (delta, c), theta = potential, path.theta[-1]
    found = minimiser(problem, target, delta[None], c[None])[0]
    size = torch.linalg.vector_norm(theta)
    # Delta does not move; the errors of the solver in ln|w_+-| shift c
    error = solver_error(path) + shift
    moves = math.sqrt(problem.d) * error * torch.hypot(2 * theta, delta).max()
    allowed = off_target(problem, theta, delta, target) + moves
    return equal(
        name,
        section,
        [*hypotheses, solved(found, delta, c)],
        measured=distance(theta, found) / size,
        tolerance=SOLVED + allowed / size,
        judged=judged,
    )

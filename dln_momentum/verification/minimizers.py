"""The minimisers that gradient flow converges to: from the start, and from sqrt(Delta_inf).

Delta_0 and theta_0 are those of the setting, not of the path: a flow that starts elsewhere fails.
(docs/theory.md#gradient-flow and docs/theory.md#effective-initialisation; poster, sections 3, 4.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.flows import FlowPath
from dln_momentum.flows.trajectory import solver_error
from dln_momentum.outputs.minimisers import distance, minimiser
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import delta_in_range, explicit_part
from dln_momentum.verification.statement import Hypothesis, Statement, equal
from dln_momentum.verification.trajectory import SOLVED, off_target, solved


def gradient_flow_along(m: Measurements) -> Statement:
    """theta_t = argmin D_{psi_{Delta_0}}(., theta_0) over its level set, w_+- integrated."""
    path = m.explicit_gradient_path
    target = m.problem.row_space.coordinates(path.theta[-1])
    return _compare(
        "GF: theta_t = argmin D_(psi, Delta_0)(., theta_0) over X theta = X theta_t",
        3,
        m,
        path,
        target,
        _start(m),
        [delta_in_range(m.setting.balancedness, "Delta_0")],
        judged=explicit_part(path),
    )


def gradient_flow_limit(m: Measurements) -> Statement:
    """theta^GF = argmin { D_{psi_{Delta_0}}(theta, theta_0) : X theta = y }."""
    name = "GF: theta_inf = argmin D_(psi, Delta_0)(., theta_0) over X theta = y"
    path = m.gradient_path
    return _limit(name, 3, m, path, _start(m), [delta_in_range(m.setting.balancedness, "Delta_0")])


def effective_start(m: Measurements) -> Statement:
    """From u = sqrt(Delta_inf), v = 0 gradient flow converges to argmin psi_{Delta_inf} over S.

    The flow starts from Delta_inf of `limit_bias`; Delta_inf here is |w_+ w_-| at the end of the
    momentum flow, which differs from the first by the remaining boundary term.
    """
    name = "GF from u = sqrt(Delta_inf), v = 0: theta_inf = argmin psi_(Delta_inf)"
    flow = m.momentum_path
    ended = Hypothesis("the momentum flow converged", flow.converged, f"status {flow.status.value}")
    last = (flow.w[0, -1] * flow.w[1, -1]).abs()
    fine = delta_in_range(last, "Delta_inf")
    if not (ended.met and fine.met):
        return Statement(name, 4, (ended, fine))
    found = limit_bias(flow).balancedness
    if not bool(((found > 0) & found.isfinite()).all()):
        # the flow has converged within the range of float64: this is a fault of the package
        return equal(name, 4, [ended, fine], measured=torch.nan, tolerance=SOLVED)
    left = flow.lam * (flow.dw[:, -1] / flow.w[:, -1]).sum(0)
    return _limit(
        name, 4, m, m.effective_path, (last, torch.zeros_like(last)), [ended, fine],
        shift=float(left.abs().max()),
    )  # fmt: skip


def _start(m: Measurements) -> tuple[Tensor, Tensor]:
    """Delta_0 and the log form of theta_0."""
    return m.setting.balancedness, m.setting.log_init


def _limit(
    name: str,
    section: int,
    m: Measurements,
    path: FlowPath,
    potential: tuple[Tensor, Tensor],
    hypotheses: list[Hypothesis],
    shift: float = 0.0,
) -> Statement:
    found = f"loss {float(path.loss[-1]):.1e} at t = {float(path.t[-1]):.6g}"
    hypotheses = [*hypotheses, Hypothesis("converged", path.converged, found)]
    target = m.problem.row_space.target(m.problem.y)
    return _compare(name, section, m, path, target, potential, hypotheses, shift=shift)


def _compare(
    name: str,
    section: int,
    m: Measurements,
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
    problem: Problem = m.problem
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

"""The implicit bias of a trajectory, the same statements for the run and for the flow.

(docs/theory.md#discrete-bias and docs/theory.md#continuous-bias; poster, sections 4 and 6.)

All of them use the exponents S_+- or I_+- summed by definition: with those read off the accumulated
gradient the statements would hold by construction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.outputs.minimisers import distance, minimiser
from dln_momentum.problem import Problem
from dln_momentum.row_space import weighted_solution
from dln_momentum.theory.discrete_bias import is_potential, log_perturbed_init_norm
from dln_momentum.theory.entropy import mirror_map
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import (
    at_rest,
    converged,
    exponents_resolved,
    no_sign_change,
    not_every_vector,
    premises,
    times_of,
)
from dln_momentum.verification.statement import (
    UNRESOLVED,
    Hypothesis,
    Statement,
    at_most,
    equal,
    last_judged,
)

SOLVED = 1e-10
"""Relative error of a minimiser for which the solver reports a residual of 1e-13."""
NEGLIGIBLE = 0.01
"""theta~_0 is negligible if leaving it out moves the minimiser by less than this fraction."""

SECTION = {"MGD": 6, "MGF": 4}


def balancedness_along(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Delta_t = Delta_0 exp(-(I~_+ + I~_-)), and with S~ for iterates, before any convergence.

    (docs/theory.md#along-the-path.)
    """
    x, t = trajectory.exponent, trajectory.time
    return equal(
        f"{trajectory.label}: Delta_{t} = Delta_0 exp(-({x}~_+ + {x}~_-)) at every recorded {t}",
        SECTION[trajectory.label],
        [*premises(m, trajectory), exponents_resolved(trajectory)],
        predicted=trajectory.predicted_balancedness[-1].sum(),
        measured=trajectory.balancedness[-1].sum(),
        error=_log_ratio(trajectory.predicted_balancedness, trajectory.balancedness).amax(-1),
        tolerance=2 * trajectory.resolution,
        times=times_of(trajectory),
    )


def balancedness_limit(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Delta_inf = Delta_0 exp(-(I_+ + I_-)), and with S.

    (docs/theory.md#discrete-limit.)
    """
    x, balancedness = trajectory.exponent, trajectory.limit_balancedness[-1]
    return equal(
        f"{trajectory.label}: Delta_inf = Delta_0 exp(-({x}_+ + {x}_-))",
        SECTION[trajectory.label],
        [converged(trajectory), *premises(m, trajectory), exponents_resolved(trajectory)],
        predicted=balancedness.sum(),
        measured=trajectory.balancedness[-1].sum(),
        error=_log_ratio(balancedness, trajectory.balancedness[-1]).max(),
        tolerance=2 * trajectory.limit_resolution,
    )


def optimality_along(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """KKT: arcsinh(2 theta/Delta)/2 - c/2 lies in span(x_1..x_n) at every time.

    (docs/theory.md#certificate.)
    """
    t, problem = trajectory.time, m.problem
    name = f"{trajectory.label}: KKT residual of theta_{t} on its level set, at every recorded {t}"
    needs = [*premises(m, trajectory), not_every_vector(m)]
    if not all(hypothesis.met for hypothesis in needs):
        return Statement(name, SECTION[trajectory.label], tuple(needs), predicted=0.0)
    residual = trajectory.certificate(problem)
    images = mirror_map(trajectory.theta, trajectory.balancedness) - trajectory.log_init / 2
    size = torch.linalg.vector_norm(images, dim=-1).clamp_min(torch.finfo(images.dtype).tiny)
    # an error of the exponents moves every coordinate of the image by as much
    allowed = math.sqrt(problem.d) * trajectory.resolution / size
    return equal(
        name,
        SECTION[trajectory.label],
        needs,
        measured=residual[last_judged(allowed)],
        error=residual,
        tolerance=allowed,
        times=times_of(trajectory),
    )


def distance_along(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """theta_t is the minimiser of D_{psi_{Delta_t}}(., theta~) over {X theta = X theta_t}.

    (docs/theory.md#minimiser and docs/theory.md#along-the-path.)
    """
    problem = m.problem
    target = problem.row_space.coordinates(trajectory.theta)
    potential = trajectory.predicted_balancedness, trajectory.log_init
    found, resolved = minimiser(problem, target, *potential), ~(trajectory.resolution > UNRESOLVED)
    size = torch.linalg.vector_norm(trajectory.theta, dim=-1)
    off = distance(trajectory.theta, found) / size
    allowed = SOLVED + _shift(problem, trajectory, found, trajectory.resolution) / size
    # exponents without a correct digit give no potential
    allowed = torch.where(trajectory.resolution > UNRESOLVED, torch.inf, allowed)
    t = trajectory.time
    return equal(
        f"{trajectory.label}: theta_{t} = argmin D(., theta~_0) over X theta = X theta_{t}",
        SECTION[trajectory.label],
        [*premises(m, trajectory), solved(found[resolved], *(x[resolved] for x in potential))],
        measured=off[last_judged(allowed)],
        error=off,
        tolerance=allowed,
        times=times_of(trajectory),
    )


def distance_limit(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """theta_inf = argmin { D_{psi_{Delta_inf}}(theta, theta~_0) : X theta = y }.

    (docs/theory.md#discrete-limit.)
    """
    problem = m.problem
    found = limit_minimiser(problem, trajectory, perturbed=True)
    size = torch.linalg.vector_norm(trajectory.theta[-1])
    return equal(
        f"{trajectory.label}: theta_inf = argmin D_(psi, Delta_inf)(., theta~_0) over X theta = y",
        SECTION[trajectory.label],
        [
            converged(trajectory),
            *premises(m, trajectory),
            solved(found, *limit_potential(trajectory)),
        ],
        measured=distance(trajectory.theta[-1], found) / size,
        tolerance=_limit_tolerance(problem, trajectory, found),
    )


def negligible_start(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """theta_inf = argmin psi_{Delta_inf}, where theta~_0 is negligible, which is measured.

    It counts as negligible where leaving it out moves the minimiser by less than 1 %: the move is
    the distance of the two minimisers, and theta_inf may be off the second by no more than that.
    """
    problem = m.problem
    with_it = limit_minimiser(problem, trajectory, perturbed=True)
    without = limit_minimiser(problem, trajectory, perturbed=False)
    delta, c = limit_potential(trajectory)
    move = float(distance(with_it, without) / torch.linalg.vector_norm(with_it))
    norm = float(log_perturbed_init_norm(delta, c))
    found = f"ln ||theta~_0|| = {norm:.3g}, leaving it out moves the minimiser by {move:.1e}"
    allowed = _limit_tolerance(problem, trajectory, with_it)
    return equal(
        f"{trajectory.label}: theta_inf = argmin psi_(Delta_inf) over X theta = y, to 1 %",
        SECTION[trajectory.label],
        [
            converged(trajectory),
            *premises(m, trajectory),
            solved(with_it, delta, c),
            solved(without, delta, torch.zeros_like(c)),
            # a nan here is a fault of the package, which the comparison then reports
            Hypothesis("theta~_0 is negligible: a move <= 1 %", not move > NEGLIGIBLE, found),
        ],
        measured=distance(trajectory.theta[-1], without)
        / torch.linalg.vector_norm(trajectory.theta[-1]),
        # without a potential there is no move
        tolerance=allowed if bool(allowed.isinf()) else move + allowed,
    )


def shrinking(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """Delta_inf < Delta_0 in every coordinate, if no w_+- changes sign.

    (docs/theory.md#sparsity.)
    """
    ratio = (trajectory.balancedness[-1] / trajectory.balancedness_start).max()
    return at_most(
        f"{trajectory.label}: Delta_inf < Delta_0 in every coordinate (largest ratio)",
        SECTION[trajectory.label],
        [at_rest(m), no_sign_change(trajectory), converged(trajectory)],
        predicted=1.0,
        measured=ratio,
        tolerance=2 * trajectory.limit_resolution,
    )


def limit_potential(trajectory: RecordedTrajectory) -> tuple[Tensor, Tensor]:
    """Delta_inf and c of theta~_0, [d] each, from the exponents at the end."""
    return trajectory.limit_balancedness[-1], trajectory.limit_log_init[-1]


def limit_minimiser(problem: Problem, trajectory: RecordedTrajectory, *, perturbed: bool) -> Tensor:
    """argmin over S of D_{psi_{Delta_inf}}(., theta~_0), or of psi_{Delta_inf} alone, [d]."""
    balancedness, c = limit_potential(trajectory)
    target = problem.row_space.target(problem.y)
    c = c if perturbed else torch.zeros_like(c)
    return minimiser(problem, target, balancedness[None], c[None])[0]


def off_target(problem: Problem, theta: Tensor, balancedness: Tensor, target: Tensor) -> Tensor:
    """How far the minimiser may be from theta because V theta is not quite the target.

    With the level set b the minimiser moves by W V^T (V W V^T)^-1 db, where
    W = sqrt(theta^2 + Delta^2/4); twice its norm allows for the second order.
    """
    rows = problem.row_space
    weights = torch.hypot(theta, balancedness / 2)
    unit = torch.eye(rows.rank, dtype=theta.dtype)
    moves = weights * weighted_solution(rows.basis, weights.expand(rows.rank, -1), unit)[0]
    missing = rows.coordinates(theta) - target
    return 2 * torch.linalg.matrix_norm(moves, 2) * torch.linalg.vector_norm(missing)


def _limit_tolerance(problem: Problem, trajectory: RecordedTrajectory, found: Tensor) -> Tensor:
    """The relative distance to the minimiser that rounding and the remaining loss explain."""
    if trajectory.limit_resolution > UNRESOLVED:
        # exponents without a correct digit give no potential
        return torch.tensor(math.inf)
    theta, delta = trajectory.theta[-1], trajectory.balancedness[-1]
    moves = _shift(problem, trajectory, found, trajectory.limit_resolution)
    moves = moves + off_target(problem, theta, delta, problem.row_space.target(problem.y))
    return SOLVED + moves / torch.linalg.vector_norm(theta)


def _shift(
    problem: Problem, trajectory: RecordedTrajectory, found: Tensor, resolution: Tensor | float
) -> Tensor | float:
    """How far the minimiser may be off because the exponents are.

    Two minimisers A and B whose c differ obey <grad psi(A) - grad psi(B), A - B> = <dc/2, A - B>,
    so that ||A - B|| <= ||dc||/2 max sqrt(4 theta^2 + Delta^2). An error of both exponents moves c
    and, through Delta, the mirror image by twice as much.
    """
    delta = trajectory.balancedness if found.ndim > 1 else trajectory.balancedness[-1]
    steepest = torch.hypot(2 * found, delta).amax(-1)
    return 2 * math.sqrt(problem.d) * resolution * steepest


def _log_ratio(predicted: Tensor, measured: Tensor) -> Tensor:
    return (predicted / measured).log().abs()


def solved(found: Tensor, balancedness: Tensor, log_init: Tensor) -> Hypothesis:
    """Whether the convex solver found the minimisers of the valid potentials.

    An invalid potential (Delta or c is nan) is a fault of the package: the statement then fails.
    """
    failed = int((is_potential(balancedness, log_init) & ~found.isfinite().all(-1)).sum())
    return Hypothesis("the convex solver converged", failed == 0, f"{failed} failures")

"""The implicit bias of a run, in discrete and in continuous time alike.

(docs/theory.md#discrete-bias and docs/theory.md#continuous-bias; poster, sections 4 and 6.)

Everything follows from the exponents S_+- or I_+-, which are summed by their definition here: with
those of the accumulated gradient the statements would hold by construction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.outputs.summary import distance, minimiser
from dln_momentum.problem import Problem
from dln_momentum.row_space import weighted_solution
from dln_momentum.theory.discrete_bias import log_perturbed_init_norm
from dln_momentum.theory.entropy import bregman_divergence, inverse_mirror_map, mirror_map
from dln_momentum.theory.three_point import three_point_sides
from dln_momentum.theory.trajectory import Trajectory
from dln_momentum.verification.course import (
    at_rest,
    converged,
    moved,
    no_sign_change,
    nowhere_zero,
    times_of,
)
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import UNRESOLVED, Hypothesis, Statement, at_most, equal

SOLVED = 1e-10
"""The relative error of a minimiser of which the solver says that it has a residual of 1e-13."""
NEGLIGIBLE = 0.01
"""theta~_0 counts as negligible if leaving it out moves the minimiser by less than this share."""

SECTION = {"MGD": 6, "MGF": 4}


def balancedness_along(evidence: Evidence, course: Trajectory) -> Statement:
    """Delta_t = Delta_0 exp(-(I~_+ + I~_-)), and with S~ for iterates, before any convergence."""
    x, t = course.exponent, course.time
    return equal(
        f"{course.label}: Delta_{t} = Delta_0 exp(-({x}~_+ + {x}~_-)) at every recorded {t}",
        SECTION[course.label],
        _premises(evidence, course),
        predicted=course.predicted_balancedness[-1].sum(),
        measured=course.balancedness[-1].sum(),
        error=_log_ratio(course.predicted_balancedness, course.balancedness).amax(-1),
        tolerance=2 * course.resolution,
        times=times_of(course),
    )


def balancedness_limit(evidence: Evidence, course: Trajectory) -> Statement:
    """Delta_inf = Delta_0 exp(-(I_+ + I_-)), and with S."""
    x, (balancedness, _) = course.exponent, course.limit
    return equal(
        f"{course.label}: Delta_inf = Delta_0 exp(-({x}_+ + {x}_-))",
        SECTION[course.label],
        [converged(course), *_premises(evidence, course)],
        predicted=balancedness.sum(),
        measured=course.balancedness[-1].sum(),
        error=_log_ratio(balancedness, course.balancedness[-1]).max(),
        tolerance=2 * course.limit_resolution,
    )


def optimality_along(evidence: Evidence, course: Trajectory) -> Statement:
    """KKT: arcsinh(2 theta/Delta)/2 - c/2 lies in span(x_1..x_n) at every time."""
    t, problem = course.time, evidence.problem
    name = f"{course.label}: KKT residual of theta_{t} on its level set, at every recorded {t}"
    premises = _premises(evidence, course)
    if not all(premise.met for premise in premises):
        return Statement(name, SECTION[course.label], tuple(premises), predicted=0.0)
    residual = course.certificate(problem)
    images = mirror_map(course.theta, course.balancedness) - course.log_init / 2
    size = torch.linalg.vector_norm(images, dim=-1).clamp_min(torch.finfo(images.dtype).tiny)
    return equal(
        name,
        SECTION[course.label],
        premises,
        measured=residual[-1],
        error=residual,
        # an error of the exponents moves every coordinate of the image by as much
        tolerance=math.sqrt(problem.d) * course.resolution / size,
        times=times_of(course),
    )


def distance_along(evidence: Evidence, course: Trajectory) -> Statement:
    """theta_t is the minimiser of D_{psi_{Delta_t}}(., theta~) over {X theta = X theta_t}."""
    problem = evidence.problem
    target = problem.row_space.coordinates(course.theta)
    potential = course.predicted_balancedness, course.log_init
    found, resolved = minimiser(problem, target, *potential), ~(course.resolution > UNRESOLVED)
    size = torch.linalg.vector_norm(course.theta, dim=-1)
    gap = distance(course.theta, found) / size
    allowed = SOLVED + _shift(problem, course, found, course.resolution) / size
    # exponents that are all rounding give potentials that are none
    allowed = torch.where(course.resolution > UNRESOLVED, torch.inf, allowed)
    t = course.time
    return equal(
        f"{course.label}: theta_{t} = argmin D(., theta~_0) over X theta = X theta_{t}",
        SECTION[course.label],
        [
            *_premises(evidence, course),
            solved(found[resolved], *(x[resolved] for x in potential)),
        ],
        measured=gap[-1],
        error=gap,
        tolerance=allowed,
        times=times_of(course),
    )


def distance_limit(evidence: Evidence, course: Trajectory) -> Statement:
    """theta_inf = argmin { D_{psi_{Delta_inf}}(theta, theta~_0) : X theta = y }."""
    problem = evidence.problem
    found = limit_minimiser(problem, course, perturbed=True)
    size = torch.linalg.vector_norm(course.theta[-1])
    return equal(
        f"{course.label}: theta_inf = argmin D_(psi, Delta_inf)(., theta~_0) over X theta = y",
        SECTION[course.label],
        [
            converged(course),
            *_premises(evidence, course),
            solved(found, *course.limit),
        ],
        measured=distance(course.theta[-1], found) / size,
        tolerance=_limit_tolerance(problem, course, found),
    )


def negligible_start(evidence: Evidence, course: Trajectory) -> Statement:
    """theta_inf = argmin psi_{Delta_inf}, where theta~_0 is negligible, which is measured.

    It counts as negligible where leaving it out moves the minimiser by less than 1 %: the move is
    the distance of the two minimisers, and theta_inf may be off the second by no more than that.
    """
    problem = evidence.problem
    with_it = limit_minimiser(problem, course, perturbed=True)
    without = limit_minimiser(problem, course, perturbed=False)
    delta, c = course.limit
    move = float(distance(with_it, without) / torch.linalg.vector_norm(with_it))
    norm = float(log_perturbed_init_norm(delta, c))
    found = f"ln ||theta~_0|| = {norm:.3g}, leaving it out moves the minimiser by {move:.1e}"
    return equal(
        f"{course.label}: theta_inf = argmin psi_(Delta_inf) over X theta = y, to 1 %",
        SECTION[course.label],
        [
            converged(course),
            *_premises(evidence, course),
            solved(with_it, delta, c),
            solved(without, delta, torch.zeros_like(c)),
            # a move that is not a number is an error of ours, for the comparison to find
            Hypothesis("theta~_0 is negligible: a move <= 1 %", not move > NEGLIGIBLE, found),
        ],
        measured=distance(course.theta[-1], without) / torch.linalg.vector_norm(course.theta[-1]),
        tolerance=move + _limit_tolerance(problem, course, with_it),
    )


def shrinking(evidence: Evidence, course: Trajectory) -> Statement:
    """Delta_inf < Delta_0 in every coordinate, if no w_+- changes sign."""
    ratio = (course.balancedness[-1] / course.balancedness_start).max()
    return at_most(
        f"{course.label}: Delta_inf < Delta_0 in every coordinate (largest ratio)",
        SECTION[course.label],
        [at_rest(evidence), no_sign_change(course), converged(course)],
        predicted=1.0,
        measured=ratio,
        tolerance=2 * course.limit_resolution,
    )


def pythagoras(evidence: Evidence, course: Trajectory) -> Statement:
    """D(theta*, theta~_0) = D(theta*, theta_t) + D(theta_t, theta~_0) for X theta* = X theta_t.

    The Bregman cosine theorem, with a right angle at theta_t; theta* is the point of the level set
    that is nearest to zero.
    """
    problem, t = evidence.problem, course.time
    name = (
        f"{course.label}: D(theta*, theta~_0) = D(theta*, theta_{t}) + D(theta_{t}, theta~_0), at "
        f"the end"
    )
    premises = _premises(evidence, course)
    if not all(premise.met for premise in premises):
        return Statement(name, 5, tuple(premises))
    theta, balancedness, c = course.theta[-1], course.balancedness[-1], course.log_init[-1]
    start = inverse_mirror_map(c / 2, balancedness)
    # a c that is no number is an error of ours; a finite one may stand for a theta~_0 beyond 1e308
    fine = bool(start.isfinite().all()) or not bool(c.isfinite().all())
    found = f"its largest entry is {float(start.abs().max()):.1e}"
    other = problem.row_space.project(theta)
    sides = three_point_sides(other, theta, start, balancedness)
    whole = float(bregman_divergence(other, start, balancedness))
    turn = torch.linalg.vector_norm(mirror_map(theta, balancedness) - c / 2)
    # the angle is right up to the error of c; divergences carry the rounding of a sum
    allowed = math.sqrt(problem.d) * course.resolution[-1] * distance(other, theta)
    rounding = 1e-13 * (whole + turn * distance(other, theta))
    scale = whole or 1.0
    return equal(
        name,
        5,
        [*premises, Hypothesis("theta~_0 is a float64", fine, found)],
        predicted=whole,
        measured=whole + float(sides[0]),
        error=abs(float(sides[0])) / scale,
        tolerance=float(allowed + rounding) / scale,
        judged=course.part,
    )


def limit_minimiser(problem: Problem, course: Trajectory, *, perturbed: bool) -> Tensor:
    """argmin over S of D_{psi_{Delta_inf}}(., theta~_0), or of psi_{Delta_inf} alone, [d]."""
    balancedness, c = course.limit
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


def _premises(evidence: Evidence, course: Trajectory) -> list[Hypothesis]:
    return [moved(course), nowhere_zero(evidence, course)]


def _limit_tolerance(problem: Problem, course: Trajectory, found: Tensor) -> Tensor:
    """The relative distance to the minimiser that rounding and the left-over loss explain."""
    theta, delta = course.theta[-1], course.balancedness[-1]
    moves = _shift(problem, course, found, course.limit_resolution)
    moves = moves + off_target(problem, theta, delta, problem.row_space.target(problem.y))
    return SOLVED + moves / torch.linalg.vector_norm(theta)


def _shift(
    problem: Problem, course: Trajectory, found: Tensor, resolution: Tensor | float
) -> Tensor | float:
    """How far the minimiser may be off because the exponents are.

    Two minimisers A and B whose c differ obey <grad psi(A) - grad psi(B), A - B> = <dc/2, A - B>,
    so that ||A - B|| <= ||dc||/2 max sqrt(4 theta^2 + Delta^2). An error of both exponents moves c
    and, through Delta, the mirror image by twice as much.
    """
    delta = course.balancedness if found.ndim > 1 else course.balancedness[-1]
    steepest = torch.hypot(2 * found, delta).amax(-1)
    return 2 * math.sqrt(problem.d) * resolution * steepest


def _log_ratio(predicted: Tensor, measured: Tensor) -> Tensor:
    return (predicted / measured).log().abs()


def solved(found: Tensor, balancedness: Tensor, log_init: Tensor) -> Hypothesis:
    """Whether the convex solver found its minimisers, of the potentials that are any.

    A potential that is none (a Delta or c that is no number) is an error of ours: the comparison
    then fails, instead of being called off.
    """
    usable = ((balancedness > 0) & balancedness.isfinite() & log_init.isfinite()).all(-1)
    failed = int((usable & ~found.isfinite().all(-1)).sum())
    return Hypothesis("the convex solver converged", failed == 0, f"{failed} failures")

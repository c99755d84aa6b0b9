"""The implicit bias of a run, in discrete and in continuous time alike.

(docs/theory.md#discrete-bias and docs/theory.md#continuous-bias; poster, sections 4 and 6.)

Everything follows from the exponents S_+- or I_+-, which are summed by their definition here: with
those of the accumulated gradient the statements would hold by construction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.flow import three_point_sides
from dln_momentum.implicit_bias import kkt_residual, log_perturbed_init_norm
from dln_momentum.potentials import bregman_divergence, inverse_mirror_map, mirror_map
from dln_momentum.problem import Problem
from dln_momentum.row_space import weighted_solution
from dln_momentum.summary import distance, minimiser
from dln_momentum.verification.course import Course
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal

SOLVED = 1e-10
"""The relative error of a minimiser of which the solver says that it has a residual of 1e-13."""
NEGLIGIBLE = 0.01
"""theta~_0 counts as negligible if leaving it out moves the minimiser by less than this share."""

SECTION = {"MGD": 6, "MGF": 4}


def balancedness_along(course: Course) -> Statement:
    """Delta_t = Delta_0 exp(-(I~_+ + I~_-)), and with S~ for iterates, before any convergence."""
    x, t = course.exponent, course.time
    return equal(
        f"{course.label}: Delta_{t} = Delta_0 exp(-({x}~_+ + {x}~_-)) at every {t}",
        SECTION[course.label],
        [course.moved],
        predicted=course.predicted_balancedness[-1].sum(),
        measured=course.balancedness[-1].sum(),
        error=_log_ratio(course.predicted_balancedness, course.balancedness).amax(-1),
        tolerance=2 * course.resolution,
    )


def balancedness_limit(course: Course) -> Statement:
    """Delta_inf = Delta_0 exp(-(I_+ + I_-)), and with S."""
    x, (balancedness, _) = course.exponent, course.limit
    return equal(
        f"{course.label}: Delta_inf = Delta_0 exp(-({x}_+ + {x}_-))",
        SECTION[course.label],
        [course.converged],
        predicted=balancedness.sum(),
        measured=course.balancedness[-1].sum(),
        error=_log_ratio(balancedness, course.balancedness[-1]).max(),
        tolerance=2 * course.limit_resolution,
    )


def optimality_along(problem: Problem, course: Course) -> Statement:
    """KKT: arcsinh(2 theta/Delta)/2 - c/2 lies in span(x_1..x_n) at every time."""
    residual = certificate(problem, course)
    images = mirror_map(course.theta, course.balancedness) - course.log_init / 2
    size = torch.linalg.vector_norm(images, dim=-1).clamp_min(torch.finfo(images.dtype).tiny)
    return equal(
        f"{course.label}: KKT residual of theta_{course.time} on its level set, at every "
        f"{course.time}",
        SECTION[course.label],
        [course.moved],
        measured=residual[-1],
        error=residual,
        # an error of the exponents moves every coordinate of the image by as much
        tolerance=math.sqrt(problem.d) * course.resolution / size,
    )


def certificate(problem: Problem, course: Course) -> Tensor:
    """The KKT residual of theta at each time, [T]; nan where the exponents left float64."""
    delta, c = course.predicted_balancedness, course.log_init
    usable = ((delta > 0) & delta.isfinite() & c.isfinite()).all(-1, keepdim=True)
    theta, delta, c = (torch.where(usable, x, 1.0) for x in (course.theta, delta, c))
    residual = kkt_residual(problem.row_space, theta, delta, c)
    return torch.where(usable[:, 0], residual, torch.nan)


def distance_along(problem: Problem, course: Course) -> Statement:
    """theta_t is the minimiser of D_{psi_{Delta_t}}(., theta~) over {X theta = X theta_t}."""
    target = problem.row_space.coordinates(course.theta)
    found = minimiser(problem, target, course.predicted_balancedness, course.log_init)
    size = torch.linalg.vector_norm(course.theta, dim=-1)
    gap = distance(course.theta, found) / size
    allowed = SOLVED + _shift(problem, course, found, course.resolution) / size
    t = course.time
    return equal(
        f"{course.label}: theta_{t} = argmin D(., theta~_0) over X theta = X theta_{t}",
        SECTION[course.label],
        [course.moved, _solved(found)],
        measured=gap[-1],
        error=gap,
        tolerance=allowed,
    )


def distance_limit(problem: Problem, course: Course) -> Statement:
    """theta_inf = argmin { D_{psi_{Delta_inf}}(theta, theta~_0) : X theta = y }."""
    found = limit_minimiser(problem, course, perturbed=True)
    size = torch.linalg.vector_norm(course.theta[-1])
    allowed = _shift(problem, course, found, course.limit_resolution)
    target = problem.row_space.target(problem.y)
    allowed = allowed + off_target(problem, course.theta[-1], course.balancedness[-1], target)
    return equal(
        f"{course.label}: theta_inf = argmin D_(psi, Delta_inf)(., theta~_0) over X theta = y",
        SECTION[course.label],
        [course.converged, _solved(found)],
        measured=distance(course.theta[-1], found) / size,
        tolerance=SOLVED + allowed / size,
    )


def negligible_start(problem: Problem, course: Course) -> Statement:
    """theta_inf = argmin psi_{Delta_inf}, where theta~_0 is negligible, which is measured.

    The minimisers A with theta~_0 and B without it obey <grad psi(A) - grad psi(B), A - B> =
    <c/2, A - B>, so that ||A - B|| <= ||c_perp||/2 max sqrt(4 theta^2 + Delta^2), with c_perp the
    component of c outside the row space and the maximum over the coordinates of both.
    """
    with_it = limit_minimiser(problem, course, perturbed=True)
    without = limit_minimiser(problem, course, perturbed=False)
    size = float(torch.linalg.vector_norm(with_it))
    balancedness, c = course.limit
    outside = float(torch.linalg.vector_norm(problem.row_space.reject(c)))
    bound = outside / 2 * _steepest(torch.stack([with_it, without]), balancedness) / size
    norm = float(log_perturbed_init_norm(balancedness, c))
    share = f"ln ||theta~_0|| = {norm:.3g}, moves it by at most {bound:.1e} of ||theta||"
    return equal(
        f"{course.label}: theta_inf = argmin psi_(Delta_inf) over X theta = y, to 1 %",
        SECTION[course.label],
        [
            course.converged,
            _solved(with_it),
            _solved(without),
            Hypothesis("theta~_0 is negligible", bound <= NEGLIGIBLE, share),
        ],
        measured=distance(course.theta[-1], without) / size,
        tolerance=NEGLIGIBLE,
    )


def shrinking(course: Course) -> Statement:
    """Delta_inf < Delta_0 in every coordinate, if no w_+- changes sign."""
    ratio = (course.balancedness[-1] / course.balancedness_start).max()
    return at_most(
        f"{course.label}: Delta_inf < Delta_0 in every coordinate (largest ratio)",
        SECTION[course.label],
        [course.no_sign_change(), course.converged],
        predicted=1.0,
        measured=ratio,
        tolerance=2 * course.limit_resolution,
    )


def pythagoras(problem: Problem, course: Course) -> Statement:
    """D(theta*, theta~_0) = D(theta*, theta_t) + D(theta_t, theta~_0) for X theta* = X theta_t.

    The Bregman cosine theorem, with a right angle at theta_t; theta* is the point of the level set
    that is nearest to zero.
    """
    theta, balancedness, c = course.theta[-1], course.balancedness[-1], course.log_init[-1]
    start = inverse_mirror_map(c / 2, balancedness)
    other = problem.row_space.project(theta)
    finite = bool(start.isfinite().all())
    found = f"its largest entry is {float(start.abs().max()):.1e}"
    sides = three_point_sides(other, theta, start, balancedness) if finite else (math.nan,) * 2
    whole = float(bregman_divergence(other, start, balancedness)) if finite else math.nan
    turn = torch.linalg.vector_norm(mirror_map(theta, balancedness) - c / 2)
    # the angle is right up to the error of c; divergences carry the rounding of a sum
    allowed = math.sqrt(problem.d) * course.resolution[-1] * distance(other, theta)
    rounding = 1e-13 * (whole + turn * distance(other, theta))
    # a run that blew up at once has only its start, from which everything is at distance 0
    scale = whole or 1.0
    return equal(
        f"{course.label}: D(theta*, theta~_0) = D(theta*, theta_{course.time}) + "
        f"D(theta_{course.time}, theta~_0)",
        5,
        [course.moved, Hypothesis("theta~_0 is a float64", finite, found)],
        predicted=whole,
        measured=whole + float(sides[0]),
        error=abs(float(sides[0])) / scale,
        tolerance=float(allowed + rounding) / scale,
    )


def limit_minimiser(problem: Problem, course: Course, *, perturbed: bool) -> Tensor:
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


def _shift(
    problem: Problem, course: Course, found: Tensor, resolution: Tensor | float
) -> Tensor | float:
    """How far the minimiser may be off because the exponents are: see `negligible_start`.

    An error of both exponents moves c and, through Delta, the mirror image by twice as much.
    """
    delta = course.balancedness if found.ndim > 1 else course.balancedness[-1]
    return 2 * math.sqrt(problem.d) * resolution * _steepest_each(found, delta)


def _steepest_each(theta: Tensor, balancedness: Tensor) -> Tensor:
    return torch.hypot(2 * theta, balancedness).amax(-1)


def _steepest(theta: Tensor, balancedness: Tensor) -> float:
    return float(_steepest_each(theta, balancedness).max())


def _log_ratio(predicted: Tensor, measured: Tensor) -> Tensor:
    return (predicted / measured).log().abs()


def _solved(found: Tensor) -> Hypothesis:
    return Hypothesis("the convex solver converged", bool(found.isfinite().all()))

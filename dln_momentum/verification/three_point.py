"""The three-point identity along a trajectory: a right angle at theta_t.

(docs/theory.md#three-point; poster, section 5.)
"""

from __future__ import annotations

import math

import torch

from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.outputs.minimisers import distance
from dln_momentum.theory.entropy import bregman_divergence, inverse_mirror_map, mirror_map
from dln_momentum.theory.three_point import three_point_sides
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP, premises
from dln_momentum.verification.statement import Hypothesis, Statement, equal


def pythagoras(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """D(theta*, theta~_0) = D(theta*, theta_t) + D(theta_t, theta~_0) for X theta* = X theta_t.

    The Bregman cosine theorem, with a right angle at theta_t; theta* is the point of the level set
    that is nearest to zero.
    """
    problem, t = m.problem, trajectory.time
    sides = f"D(theta*, theta~_0) = D(theta*, theta_{t}) + D(theta_{t}, theta~_0)"
    name = f"{trajectory.label}: {sides}, at the end"
    needs = premises(m, trajectory)
    if not all(hypothesis.met for hypothesis in needs):
        return Statement(name, 5, tuple(needs))
    theta, balancedness = trajectory.theta[-1], trajectory.balancedness[-1]
    c = trajectory.log_init[-1]
    start = inverse_mirror_map(c / 2, balancedness)
    # a c that is nan is a fault of the package; a finite one may mean a theta~_0 beyond 1e308
    fine = bool(start.isfinite().all()) or not bool(c.isfinite().all())
    found = f"its largest entry is {float(start.abs().max()):.1e}"
    other = problem.row_space.project(theta)
    excess = float(three_point_sides(other, theta, start, balancedness)[0])
    whole = float(bregman_divergence(other, start, balancedness))
    turn = torch.linalg.vector_norm(mirror_map(theta, balancedness) - c / 2)
    # the angle is right up to the error of c; divergences carry the rounding of a sum
    allowed = math.sqrt(problem.d) * trajectory.resolution[-1] * distance(other, theta)
    rounding = 1e-13 * (whole + turn * distance(other, theta))
    # theta~_0 is Delta/2 sinh c: its image is good for an ulp of c, times what it is multiplied by
    rounding = rounding + 8 * ULP * float(c.abs().max()) * distance(other, start) * problem.d**0.5
    scale = whole or 1.0
    return equal(
        name,
        5,
        [*needs, Hypothesis("theta~_0 is a float64", fine, found)],
        predicted=whole,
        measured=whole + excess,
        error=abs(excess) / scale,
        tolerance=float(allowed + rounding) / scale,
        judged=trajectory.part,
    )

"""The theorem at depth 3, theta = u^3 - v^3, on a run of the setting's problem written out.

(docs/theory.md#depth; not on the poster.) The steps are normalised, so that no data make a layer
vanish: gamma_k times the gradient moves no entry by more than a fixed part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.row_space import vector_norm
from dln_momentum.theory.depth import path_sum_increment, power_mirror
from dln_momentum.theory.power_minimizer import power_minimizer
from dln_momentum.theory.power_trajectory import PowerTrajectory
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP
from dln_momentum.verification.statement import Hypothesis, Statement, equal

DEPTH, STEPS, SIZE = 3.0, 60, 0.02
MOST_ENTRIES = 50_000
"""Entries of X up to which the minimiser is computed."""
MOST_BETA = 0.9
"""Momentum at most: a step moves the layers by SIZE/(1 - beta) of themselves."""


@dataclass(frozen=True)
class _Run(PowerTrajectory):
    """The end of the run."""

    w_start: Tensor
    w: Tensor
    exponents: Tensor
    depth: Tensor | float = DEPTH
    rounding: float = 0.0
    """of S, relative to u^(-m)"""


def _run(m: Measurements) -> _Run:
    """Take the steps from u = v = the setting's alpha; S with the weights of the last step."""
    problem, setting = m.problem, m.setting
    start = setting.w.abs().amax(0).clamp(min=1e-3).expand(2, problem.d)
    beta = [min(m.momentum.beta, MOST_BETA) * (k % 7 != 6) for k in range(STEPS)]
    now, last, path = start.clone(), torch.zeros_like(start), [start]
    sign = torch.tensor([[1.0], [-1.0]], dtype=now.dtype)
    for b in beta:
        g = problem.X.T @ (problem.X @ (now[0] ** DEPTH - now[1] ** DEPTH) - problem.y)
        pull = sign * g * now ** (DEPTH - 1)
        relative = (pull / now).abs().max()
        gamma = SIZE * (1 - b) / relative if relative > 0 else 0.0
        last = b * last - gamma * pull
        now = now + last
        path.append(now)
    sums, weight = torch.zeros_like(start), 1.0
    for k in reversed(range(STEPS)):
        sums = sums + path_sum_increment(path[k], path[k + 1], weight, DEPTH)
        weight = 1 + beta[k] * weight
    return _Run(start, now, sums, rounding=8 * ULP * STEPS / (1 - MOST_BETA))


def scale_and_minimiser(m: Measurements) -> list[Statement]:
    """A from S_u and S_v, the KKT residual, and the minimiser that the dual gives."""
    run, rows = _run(m), m.problem.row_space
    positive = Hypothesis("u, v > 0", bool((run.w > 0).all()), f"least {float(run.w.min()):.2g}")
    A, c = run.predicted_scale, run.log_init
    name = "Depth 3"
    z = power_mirror(run.theta, run.scale, DEPTH) - c
    size = float(torch.linalg.vector_norm(A) / torch.linalg.vector_norm(z))
    small = Hypothesis(
        f"n d at most {MOST_ENTRIES}", m.problem.X.numel() <= MOST_ENTRIES, f"{m.problem.X.numel()}"
    )
    found = run.theta
    if positive.met and small.met:
        found = power_minimizer(rows, rows.coordinates(run.theta), A, c, depth=DEPTH).theta
    # an error of z moves theta by the slope of h_A, at most 2 p max(u, v)^(D + m), off the span
    slope = 2 * DEPTH / (DEPTH - 2) * float(run.w.max() ** (2 * DEPTH - 2) / run.w.min())
    moved = run.rounding * float(A.max()) * slope / float(vector_norm(run.theta))
    return [
        equal(
            f"{name}: u^(2-D) + v^(2-D) = 2 A with A from S_u and S_v",
            6,
            [positive],
            predicted=A.sum(),
            measured=run.scale.sum(),
            error=(A / run.scale - 1).abs().max(),
            tolerance=run.rounding,
        ),
        equal(
            f"{name}: theta_(K+1) minimises the divergence of H_A (KKT residual)",
            6,
            [positive],
            measured=run.certificate(m.problem),
            tolerance=run.rounding * size,
        ),
        equal(
            f"{name}: theta_(K+1) is the minimiser that Newton's method finds",
            6,
            [positive, small],
            predicted=vector_norm(found),
            measured=vector_norm(run.theta),
            error=vector_norm(found - run.theta) / vector_norm(run.theta),
            tolerance=moved + 1e-12,
        ),
    ]

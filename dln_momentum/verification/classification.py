"""Training on the signs of the setting's targets by the logistic loss, on a run written out.

(docs/theory.md#other-losses; not on the poster.) The steps are normalised, gamma_k =
SIZE/||gradient||, so that no data make them diverge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.row_space import vector_norm
from dln_momentum.theory.classification import (
    margin_certificate,
    margin_minimizer,
    margins,
    normalised_margin,
)
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, is_potential, log_init
from dln_momentum.theory.max_margin import max_margin
from dln_momentum.theory.schedules import path_sums
from dln_momentum.theory.trajectory import balancedness_of, theta_of
from dln_momentum.verification.family_run import FamilyRun, diagonal, theorem
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP
from dln_momentum.verification.statement import UNRESOLVED, Hypothesis, Statement, at_most, equal

STEPS, SIZE = 60, 0.05
MOST_ROWS, MOST_ENTRIES = 60, 20_000
"""Rows and entries of X up to which minimisers under margins and max margins are computed."""


def labelled(m: Measurements) -> tuple[Problem | None, Hypothesis]:
    """The setting's rows with the signs of its targets; None where they are not separable."""
    what = "y is nowhere 0, and its signs are separable"
    try:
        return m.problem.with_loss("logistic"), Hypothesis(what, True)
    except ValueError as error:
        return None, Hypothesis(what, False, str(error).splitlines()[0])


def _run(m: Measurements, problem: Problem) -> FamilyRun:
    """Heavy ball from the setting's start at rest, with one restart."""
    w, beta = m.setting.w, [m.momentum.beta] * STEPS
    beta[STEPS // 2] = 0.0
    now = torch.stack([w[0] + w[1], w[0] - w[1]]) / 2
    last, layers, gammas = torch.zeros_like(now), [now], []
    for b in beta:
        gradient = problem.gradient(now[0] * now[1]) * now.flip(0)
        norm = float(vector_norm(gradient.reshape(-1)))
        gammas.append(SIZE * (1 - b) / norm if norm > 0 else 0.0)
        last = b * last - gammas[-1] * gradient
        now = now + last
        layers.append(now)
    zeros = torch.zeros(STEPS, dtype=now.dtype)
    gamma_k, beta_k = (torch.tensor(x, dtype=now.dtype) for x in (gammas, beta))
    return FamilyRun(layers[0], torch.stack(layers, 1), gamma_k, beta_k, zeros, zeros, "")


def implicit_bias(m: Measurements) -> list[Statement]:
    """Delta and c at every step, the signs of nu, and the minimiser under margins at the end."""
    problem, separable = labelled(m)
    name = "Logistic loss"
    if problem is None:
        return [Statement(f"{name}: Delta, c and the signs of nu", 6, (separable,))]
    run = _run(m, problem)
    w, before = diagonal(run.layers), diagonal(run.before)
    sums = path_sums(w.movedim(1, 0), run.beta, before)
    delta = asymptotic_balancedness(balancedness_of(w[:, 0]), *sums[-1])
    c, theta = log_init(w[0, 0], w[1, 0], *sums[-1]), theta_of(w[:, -1])
    weight = STEPS / (1 - m.momentum.beta)
    rounding = 32 * ULP * weight * (1 + float(sums[-1].abs().max()))
    zero = bool((w == 0).any())
    if rounding > UNRESOLVED or zero:
        found = "a w_+- is 0" if zero else f"errors up to {rounding:.1g} are rounding"
        lost = Hypothesis("float64 resolves it", False, found)
        return [Statement(f"{name}: Delta, c and the signs of nu", 6, (separable, lost))]
    found = margin_certificate(problem, theta, delta, c)
    independent = Hypothesis(
        "the rows are independent", problem.row_space.rank == problem.n, f"n = {problem.n}"
    )
    few = Hypothesis(f"at most {MOST_ROWS} rows", problem.n <= MOST_ROWS, f"{problem.n}")
    z = torch.asinh(2 * theta / delta) - c
    size = float(vector_norm(z)) / 2
    signs = equal(
        f"{name}: y_i nu_i >= 0 in arcsinh(2 theta/Delta) - c = 2 X^T nu",
        6,
        [separable],
        measured=found.sign_violation,
        tolerance=rounding * problem.d**0.5 / size,
    )
    judged = [*theorem(name, run, problem.row_space, w, before, sums, run.beta), signs]
    return [*judged, _minimiser(problem, theta, delta, c, [separable, independent, few], rounding)]


def _minimiser(
    problem: Problem,
    theta: Tensor,
    delta: Tensor,
    c: Tensor,
    needs: list[Hypothesis],
    rounding: float,
) -> Statement:
    name = "Logistic loss: theta_K is the minimiser over all theta of margins at least its own"
    if not all(need.met for need in needs):
        return Statement(name, 6, tuple(needs))
    found = margin_minimizer(problem, margins(problem, theta), delta, c)
    # an invalid potential is a fault of the package: the comparison then fails
    solved = found.converged or not bool(is_potential(delta, c))
    short = f"a margin is short by {found.shortfall:.1e} of the largest"
    needs = [*needs, Hypothesis("the active-set solver converged", solved, short)]
    slope = float(torch.hypot(2 * theta, delta).max()) / float(vector_norm(theta))
    sigma = torch.linalg.svdvals(problem.X)
    condition = float(sigma[0] / sigma[-1])
    return equal(
        name,
        6,
        needs,
        predicted=vector_norm(found.theta),
        measured=vector_norm(theta),
        error=vector_norm(found.theta - theta) / vector_norm(theta),
        tolerance=problem.d**0.5 * condition * (rounding * slope + 1e-12),
    )


def largest_margins(m: Measurements) -> list[Statement]:
    """No normalised margin of the run exceeds that of the programs."""
    problem, separable = labelled(m)
    size = problem.X.numel() if problem is not None else 0
    small = Hypothesis(f"n d at most {MOST_ENTRIES}", size <= MOST_ENTRIES, f"{size}")
    names = {
        norm: f"Logistic loss: no iterate has a larger {norm} margin than the program's solution"
        for norm in ("l1", "l2")
    }
    if problem is None or not small.met:
        return [Statement(name, 6, (separable, small)) for name in names.values()]
    path = theta_of(diagonal(_run(m, problem).layers))
    found = []
    for norm, name in names.items():
        order = float(norm[1])
        reached = normalised_margin(problem, path, order).nan_to_num(-math.inf).max()
        best = normalised_margin(problem, max_margin(problem.X, problem.y, norm), order)
        # the tolerances of the linear program and of the active set
        found.append(
            at_most(name, 6, [separable], predicted=best, measured=reached, tolerance=1e-7)
        )
    return found

"""The theorem under weight decay that ends (docs/theory.md#weight-decay; not on the poster)."""

from __future__ import annotations

from dln_momentum.theory.schedules import path_sums
from dln_momentum.theory.weight_decay import balancedness_factor, rescaled
from dln_momentum.verification.family_run import Rates, diagonal, family_run, step_count, theorem
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Statement

LOG_SHRINKAGE = 0.5
"""About how far the decay takes ln|w| down."""


def coupled(m: Measurements) -> list[Statement]:
    """The gradient and omega w, for half of the steps: a factor in Delta, and c as without."""
    steps = step_count(m)
    omega = LOG_SHRINKAGE / (m.momentum.eps * steps / 2)
    run = family_run(m, Rates.of(m, omega=[omega * (k < steps // 2) for k in range(steps)]))
    w, before = diagonal(run.layers), diagonal(run.before)
    sums = path_sums(w.movedim(1, 0), run.beta, before)
    decay = (run.gamma * run.omega)[:, None]
    factor = balancedness_factor(decay, run.beta[:, None])
    return theorem(
        "Weight decay", run, m.problem.row_space, w, before, sums, run.beta, factor.log(), decay
    )


def decoupled(m: Measurements) -> list[Statement]:
    """w is multiplied by 1 - eta outside the momentum: the theorem of the rescaled iterates."""
    steps = step_count(m)
    eta = LOG_SHRINKAGE / steps
    run = family_run(m, Rates.of(m, eta=[2 * eta * (k < steps // 2) for k in range(steps)]))
    before = diagonal(run.before)
    path = rescaled(diagonal(run.layers).movedim(1, 0), run.eta)
    beta = run.beta / (1 - run.eta)
    sums = path_sums(path, beta, before)
    rows = m.problem.row_space
    name = "Decoupled weight decay (rescaled iterates)"
    return theorem(name, run, rows, path.movedim(0, 1), before, sums, beta)

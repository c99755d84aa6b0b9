"""The theorem of Nesterov's method (docs/theory.md#nesterov; not on the poster)."""

from __future__ import annotations

from dln_momentum.theory.nesterov import path_sums
from dln_momentum.verification.family_run import Rates, diagonal, family_run, theorem
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Statement


def gradients_ahead(m: Measurements) -> list[Statement]:
    """Gradients at the point ahead, with rates that change."""
    run = family_run(m, Rates.of(m), nesterov=True)
    x, before = diagonal(run.layers), diagonal(run.before)
    sums = path_sums(x.movedim(1, 0), run.beta, before)
    rows = m.problem.row_space
    return theorem("Nesterov", run, rows, x, before, sums, run.beta, nesterov=True)

"""The theorem under step sizes and momenta that change, on a run with a restart.

(docs/theory.md#schedules; not on the poster.)
"""

from __future__ import annotations

from dln_momentum.theory.schedules import path_sums
from dln_momentum.verification.family_run import Rates, diagonal, family_run, theorem
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Statement


def changing_rates(m: Measurements) -> list[Statement]:
    """gamma_k falls as 1/sqrt(k), beta_k = (k-1)/(k+2), with a restart."""
    run = family_run(m, Rates.of(m))
    w, before = diagonal(run.layers), diagonal(run.before)
    sums = path_sums(w.movedim(1, 0), run.beta, before)
    return theorem("Schedules", run, m.problem.row_space, w, before, sums, run.beta)

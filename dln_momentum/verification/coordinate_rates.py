"""The theorem with a step size for each coordinate, or for each layer.

(docs/theory.md#coordinate-rates; not on the poster.)
"""

from __future__ import annotations

import torch

from dln_momentum.row_space import RowSpace
from dln_momentum.theory.coordinate_rates import scaled_layers, scaled_rows
from dln_momentum.theory.schedules import path_sums
from dln_momentum.verification.family_run import Rates, diagonal, family_run, theorem
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Statement

RATIO = 1.5


def of_coordinates(m: Measurements) -> list[Statement]:
    """kappa_i from 1/2 to 3/2: a potential weighted by 1/kappa."""
    kappa = torch.linspace(0.5, 1.5, m.problem.d, dtype=torch.float64)
    run = family_run(m, Rates.of(m), kappa=kappa)
    w, before = (diagonal(x) / kappa.sqrt() for x in (run.layers, run.before))
    sums = path_sums(w.movedim(1, 0), run.beta, before)
    rows = RowSpace.of(scaled_rows(m.problem.X, kappa))
    return theorem("Rates of coordinates", run, rows, w, before, sums, run.beta)


def of_layers(m: Measurements) -> list[Statement]:
    """gamma_v = 9/4 gamma_u: the theorem of the weighted layers."""
    run = family_run(m, Rates.of(m), ratio=RATIO)
    w, before = (
        diagonal(torch.stack(scaled_layers(x[0], x[1], 1 / RATIO, RATIO)))
        for x in (run.layers, run.before)
    )
    sums = path_sums(w.movedim(1, 0), run.beta, before)
    return theorem("Rates of layers", run, m.problem.row_space, w, before, sums, run.beta)

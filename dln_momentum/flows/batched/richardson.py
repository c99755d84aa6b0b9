"""Richardson extrapolation: a few leapfrog runs make one segment of a path at order 8.

Leapfrog with steps H/n for n in `LEVELS` has errors c_1 (H/n)^2 + c_2 (H/n)^4 + ..., and the sum
with weights ``prod_{m != n} n^2/(n^2 - m^2)`` is free of the first len(LEVELS) - 1 of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.engine import EngineOptions
from dln_momentum.flows.batched.leapfrog import Phase, leapfrog, of_runs
from dln_momentum.problem import Problem

LEVELS = (4, 5, 6, 7)
"""Leapfrog steps to a macro step. Rounding errors grow by the sum of the weights' sizes, 35. Order
10 from (3, 4, 5, 6, 7) took more steps for the same error until that was below 1e-12."""

ORDER = 2 * len(LEVELS)

DISPLACEMENT = 1e-6
"""How far, relatively, the second path is set off that tells how the flow amplifies errors."""


class Segment(NamedTuple):
    """A segment of R paths."""

    end: Phase
    local_error: Tensor
    """its own error of (w, P), estimated by the extrapolation of order 6, [2, 2, R, d]"""
    error: Tensor
    """the error of (w, P) since the start of the path, to first order, [2, 2, R, d]"""
    sign_changes: Tensor
    """[R]"""


def weights(levels: Sequence[int]) -> list[float]:
    """Weights that cancel all but one even power for each level; they sum to 1.

    >>> [round(weight, 3) for weight in weights((1, 2))]
    [-0.333, 1.333]
    """
    return [math.prod(n * n / (n * n - m * m) for m in levels if m != n) for n in levels]


def segment(
    problem: Problem,
    runs: Tensor,
    lam: Tensor,
    start: Phase,
    error: Tensor,
    span: Tensor,
    macro_steps: int,
    options: EngineOptions,
) -> Segment:
    """Advance flows by the time ``span`` in so many macro steps.

    Args:
        problem: the data of all runs.
        runs: which of them these are, [R].
        lam, span: [R].
        start, error: where these runs are, and the error so far.
        macro_steps: at least 1.
        options: see `leapfrog`.
    """
    data, R = of_runs(problem, runs), len(runs)
    # the coarsest level runs from both starts at once
    scale = _size(error)
    factor = torch.where(scale > 0, DISPLACEMENT * _size(start.values) / scale, 1.0)[:, None]
    both = Phase(torch.cat([start.values, start.values + factor * error], -2), start.G.repeat(2, 1))
    pair, lams, spans = of_runs(problem, runs.repeat(2)), lam.repeat(2), span.repeat(2)
    steps = macro_steps * LEVELS[0]
    coarsest, _ = leapfrog(pair, lams, both, spans / steps, steps, options)
    first, displaced = coarsest.values.split(R, -2)
    ends, sign_changes = [Phase(first, coarsest.G[:R])], torch.empty(0)
    for steps in (macro_steps * n for n in LEVELS[1:]):
        end, sign_changes = leapfrog(data, lam, start, span / steps, steps, options)
        ends.append(end)
    end, lower = _combine(ends, LEVELS), _combine(ends[1:], LEVELS[1:])
    local_error = end.values - lower.values
    return Segment(end, local_error, (displaced - first) / factor + local_error, sign_changes)


def _combine(ends: Sequence[Phase], levels: Sequence[int]) -> Phase:
    terms = [(w * end.values, w * end.G) for w, end in zip(weights(levels), ends, strict=True)]
    return Phase(*(torch.stack(parts).sum(0) for parts in zip(*terms, strict=True)))


def _size(values: Tensor) -> Tensor:
    return values.abs().amax((0, 1, 3))

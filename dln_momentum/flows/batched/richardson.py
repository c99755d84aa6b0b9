"""Richardson extrapolation: four leapfrog runs give some macro-steps of a path at order 8.

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
from dln_momentum.engine.problems import data_of_runs
from dln_momentum.flows.batched.leapfrog import PhasePoint, leapfrog
from dln_momentum.problem import Problem

LEVELS = (4, 5, 6, 7)
"""Leapfrog steps per macro-step. Rounding errors grow by the sum of the absolute weights, 35. Order
10 from (3, 4, 5, 6, 7) took more steps for the same error until that was below 1e-12."""

ORDER = 2 * len(LEVELS)

DISPLACEMENT = 1e-6
"""Relative displacement of a second path, which measures how the flow amplifies errors."""


class MacroSteps(NamedTuple):
    """The result of some macro-steps of R paths."""

    end: PhasePoint
    local_error: Tensor
    """error of (w, P) in these steps, estimated by the extrapolation of order 6, [2, 2, R, d]"""
    error: Tensor
    """error of (w, P) since the start of the path, to first order, [2, 2, R, d]"""
    sign_changes: Tensor
    """[R]"""


def weights(levels: Sequence[int]) -> list[float]:
    """Weights that cancel all but one even power for each level; they sum to 1.

    >>> [round(weight, 3) for weight in weights((1, 2))]
    [-0.333, 1.333]
    """
    return [math.prod(n * n / (n * n - m * m) for m in levels if m != n) for n in levels]


def take_macro_steps(
    problem: Problem,
    runs: Tensor,
    lam: Tensor,
    start: PhasePoint,
    error: Tensor,
    duration: Tensor,
    count: int,
    options: EngineOptions,
) -> MacroSteps:
    """Advance flows by a time ``duration`` in ``count`` macro-steps.

    Args:
        problem: the data of all runs.
        runs: which of them these are, [R].
        lam, duration: [R].
        start, error: the points of these runs, and their error so far.
        count: of macro-steps, at least 1.
        options: see `leapfrog`.
    """
    data, R = data_of_runs(problem, runs), len(runs)
    # the coarsest level runs from both starts at once
    scale = _size(error)
    factor = torch.where(scale > 0, DISPLACEMENT * _size(start.values) / scale, 1.0)[:, None]
    shifted = start.values + factor * error
    both = PhasePoint(torch.cat([start.values, shifted], -2), start.G.repeat(2, 1))
    pair, lams, durations = (
        data_of_runs(problem, runs.repeat(2)),
        lam.repeat(2),
        duration.repeat(2),
    )
    steps = count * LEVELS[0]
    coarsest, _ = leapfrog(pair, lams, both, durations / steps, steps, options)
    first, displaced = coarsest.values.split(R, -2)
    ends, sign_changes = [PhasePoint(first, coarsest.G[:R])], torch.empty(0)
    for steps in (count * n for n in LEVELS[1:]):
        end, sign_changes = leapfrog(data, lam, start, duration / steps, steps, options)
        ends.append(end)
    end, lower = _combine(ends, LEVELS), _combine(ends[1:], LEVELS[1:])
    local_error = end.values - lower.values
    return MacroSteps(end, local_error, (displaced - first) / factor + local_error, sign_changes)


def _combine(ends: Sequence[PhasePoint], levels: Sequence[int]) -> PhasePoint:
    terms = [(w * end.values, w * end.G) for w, end in zip(weights(levels), ends, strict=True)]
    return PhasePoint(*(torch.stack(parts).sum(0) for parts in zip(*terms, strict=True)))


def _size(values: Tensor) -> Tensor:
    return values.abs().amax((0, 1, 3))

"""The step sizes at which a run that diverged would have been stable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from scipy.sparse.linalg import ArpackError
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.method import Method
from dln_momentum.outputs.divergence import NAMES
from dln_momentum.outputs.minimisers import minimiser
from dln_momentum.outputs.summary import of_one_rate
from dln_momentum.problem import Problem
from dln_momentum.theory.curvature import DENSE, sharpness
from dln_momentum.theory.discrete_bias import log_init

FAR = 1e6
"""A run whose weights are this many times 1, and its start, has left."""
LOOKED_AT = {True: 40, False: 5}
"""Recorded steps at which the sharpness of a run that diverged is computed, at most: while all
eigenvalues are computed, and for larger networks, of which one takes up to seconds."""


def stability(
    snapshot: Snapshot,
    problem: Problem,
    method: Method,
    recorded: Mapping[str, Tensor] = MappingProxyType({}),
    steps: Sequence[int] = (),
) -> dict[str, Any]:
    """The sharpness at the start and where gradient flow ends, and the largest stable gamma.

    (docs/theory.md#sharpness.) A step is stable on a quadratic of curvature h where h is below the
    threshold of its method, which is ``a/gamma - b``, with b what weight decay takes off. At the
    larger H of the two sharpnesses the largest stable step is therefore
    ``gamma (threshold + b)/(H + b)``: 2 (1 + beta)/H of heavy ball. It is that of the full batch,
    and of the last step where the rates change.

    Args:
        snapshot: one run at its end.
        problem: its data.
        method: its method.
        recorded: its values by name, ``w_plus`` and ``w_minus`` [T, 1, d] among them if they were
            recorded.
        steps: the recorded steps, [T].

    Returns:
        `NAMES`; ``limit_sharpness`` is nan where there is no such limit, at depths other than 2
        and for classification, and ``stable_gamma`` where the last step has size 0.
        ``unstable_step`` is the first recorded step, of `LOOKED_AT` of them, whose sharpness is
        above the threshold; None where that is not known, or the threshold changes.
    """
    data, kappa, depth = of_one_rate(snapshot, problem)
    initial, limit = _sharpness(data, snapshot.w_start / kappa**0.5, depth), math.nan
    if not isinstance(snapshot, PowerSnapshot) and not problem.is_classification:
        limit = _sharpness(data, _gradient_flow_limit(snapshot, data, kappa), depth)
    steepest = max(0.0 if math.isnan(h) else h for h in (initial, limit))
    gamma, threshold = float(snapshot.gamma), float(snapshot.threshold)
    decay = float(method.weight_decay) * (1 + float(snapshot.beta) if method.decoupled else 1.0)
    if method.decay_until is not None and int(snapshot.steps) > method.decay_until:
        decay = 0.0
    bound = math.nan if math.isinf(threshold) else math.inf
    if steepest + decay > 0 and not math.isnan(bound):
        bound = gamma * (threshold + decay) / (steepest + decay)
    first = None
    changes = not method.schedule.is_constant or (method.decays and method.decay_until is not None)
    if {"w_plus", "w_minus"} <= set(recorded) and not changes:
        chosen = range(0, len(steps), -(-len(steps) // LOOKED_AT[problem.d <= DENSE]))
        w = torch.stack([recorded[name][chosen, 0] for name in ("w_plus", "w_minus")])
        w = w.to(data.X) / kappa**0.5
        # what has gone that far is too sharp, and its squares may overflow
        gone = ~(w.abs().amax((0, 2)) < FAR * max(1.0, float(snapshot.w_start.abs().max())))
        kept = torch.where(gone[None, :, None], w[:, :1], w).unsqueeze(2)
        for step, here, left in zip(chosen, kept.unbind(1), gone.tolist(), strict=True):
            if left or _sharpness(data, here, depth) > threshold:
                first = steps[step]
                break
    return dict(zip(NAMES, (initial, limit, bound, first), strict=True))


def _sharpness(data: Problem, w: Tensor, depth: Tensor | float) -> float:
    """The sharpness of one network [2, 1, d]; nan where its matrix overflows."""
    try:
        return float(sharpness(data, w, depth))
    except (torch.linalg.LinAlgError, ArpackError):  # pyright: ignore[reportPrivateImportUsage]
        return math.nan


def _gradient_flow_limit(snapshot: Snapshot, data: Problem, kappa: Tensor) -> Tensor:
    """w_+- where gradient flow from the same start ends, in variables of one step size, [2, 1, d].

    Delta stays Delta_0, and w_+-^2 = sqrt(4 theta^2 + Delta_0^2) +- 2 theta.
    """
    delta, zero = snapshot.balancedness_start / kappa, torch.zeros_like(snapshot.theta)
    c = log_init(snapshot.w_start[0], snapshot.w_start[1], zero, zero)
    theta = minimiser(data, data.row_space.target(data.y), delta, c)
    root = torch.hypot(2 * theta, delta)
    return torch.stack([root + 2 * theta, root - 2 * theta]).clamp_min(0).sqrt()

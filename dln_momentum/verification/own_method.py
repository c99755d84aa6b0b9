"""The theorem for the method that a config asks for, on the run of the engine itself.

(docs/theory.md#one-theorem; not on the poster.)

Where the method is not heavy ball at constant rates, the statements about that are not evaluated;
these take their place. S_+- is summed from the iterates, so that a fault of the run shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import balancedness_errors, certificate, potential
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP, resolved_snapshots
from dln_momentum.verification.statement import Hypothesis, Statement, Times, equal

CHUNK = 100_000
"""Rates that are evaluated at once."""


def of_own_method(m: Measurements) -> list[Statement]:
    """Delta from S_+-, and that theta is the minimiser on its level set, at every recorded step."""
    snapshots, part = resolved_snapshots(m)
    method, end = m.setting.method, snapshots[-1]
    name = f"{method.name}, schedule {method.schedule.name}"
    times = Times("k", torch.tensor([float(s.step) for s in snapshots]), part)
    needs = [Hypothesis("the run has finite steps that float64 resolves", end.step > 0, f"{part}")]
    spread = torch.stack([_resolution(m, s) for s in snapshots])
    size = torch.stack([_image_norm(s) for s in snapshots])
    return [
        equal(
            f"{name}: Delta_(k+1) = |w_(+,1) w_(-,1)| exp(-(S_+ + S_-)) and the factor of decay",
            6,
            needs,
            predicted=end.predicted_balancedness.sum(),
            measured=end.balancedness.sum(),
            error=torch.cat([balancedness_errors(s)["path_identity_error"] for s in snapshots]),
            tolerance=2 * spread,
            times=times,
        ),
        equal(
            f"{name}: theta_(k+1) is the minimiser on its own level set (KKT residual)",
            6,
            needs,
            error=torch.cat([certificate(s, m.problem)["kkt_residual"] for s in snapshots]),
            measured=certificate(end, m.problem)["kkt_residual"][0],
            # an error of the exponents moves every coordinate of the image by as much
            tolerance=m.problem.d**0.5 * spread / size + 64 * ULP,
            times=times,
        ),
    ]


def _image_norm(snapshot: Snapshot) -> Tensor:
    """||arcsinh(2 theta/Delta) - c||/2, which the KKT residual is relative to."""
    delta, c = potential(snapshot)
    return torch.linalg.vector_norm(torch.asinh(2 * snapshot.theta / delta) - c) / 2


def _resolution(m: Measurements, snapshot: Snapshot) -> Tensor:
    """Rounding of S_+-: an ulp of w a step, with the largest weight p_k of the horizon.

    p_k is at most the number of steps, and at most 1/(1-beta) of the largest beta. As in
    `recorded.rounding`, 10,000 steps are allowed for the nearest of many sign changes.
    """
    momentum, steps = m.momentum, snapshot.step
    gamma, beta = (torch.tensor([x]).double() for x in (momentum.gamma, momentum.beta))
    largest = 0.0
    for first in range(1, max(steps, 1) + 1, CHUNK):
        count = min(CHUNK, max(steps, 1) + 1 - first)
        found = m.setting.method.schedule.rates(gamma, beta, first, count)[1]
        largest = max(largest, float(found.max()))
    weight = min(max(steps, 1), 1 / (1 - largest))
    sums = snapshot.path_sums[:, 0].abs().max()
    return ULP * (weight * (steps + 10_000) + 8 * sums)

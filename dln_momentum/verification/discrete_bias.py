"""Identities of the path sums S_+- that are exact at every step, for any gamma, beta and batches.

(docs/theory.md#finite-step-identity and docs/theory.md#log-free-identity; poster, section 6.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.theory.discrete_bias import log_free_balance
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import (
    ULP,
    before_sign_changes,
    moved,
    no_sign_change,
    premises,
    resolved_snapshots,
    times_of,
)
from dln_momentum.verification.statement import Statement, at_most, equal


def sums_from_gradients(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """S_+-, summed by definition, is -+ eps G_k - ln|w_{k+1}/w_0| less its boundary term.

    (docs/theory.md#path-sums and docs/theory.md#finite-step-identity.)
    """
    found = [s.path_sums_from_gradients[:, 0] for s in resolved_snapshots(m)[0]]
    closed = torch.stack(found, 1) + trajectory.start_term
    sizes = closed.abs().amax((0, 2)), trajectory.exponents.abs().amax((0, 2))
    # eps G_k is itself a sum of k terms, each rounded to an ulp of the sum
    size = 1 + torch.fmin(*sizes)
    return equal(
        "MGD: S_+- = -+ eps G_k - ln|w_(k+1)/w_0| - beta/(1-beta) (1 - w_k/w_(k+1))",
        6,
        premises(m, trajectory),
        predicted=closed[:, -1].sum(),
        measured=trajectory.exponents[:, -1].sum(),
        error=(trajectory.exponents - closed).abs().amax((0, 2)),
        tolerance=trajectory.resolution * size,
        times=times_of(trajectory),
    )


def log_free_identity(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """q = u^2 - v^2 from the increments alone: no logarithm, and no singularity at a zero of w.

    (docs/theory.md#log-free-identity.)
    """
    snapshots = resolved_snapshots(m)[0]
    predicted = torch.stack([_log_free(s) for s in snapshots])
    measured = torch.stack([(s.w[0] * s.w[1])[0] for s in snapshots])
    first = trajectory.w_start.abs()
    largest = torch.stack([torch.maximum(s.w[:, 0].abs(), first).max() for s in snapshots])
    return equal(
        "MGD: u^2 - v^2 = u_0^2 - v_0^2 + (1+beta)/(1-beta) sum (du^2 - dv^2) + boundary",
        6,
        [moved(trajectory)],
        predicted=predicted[-1].sum(),
        measured=measured[-1].sum(),
        error=(predicted - measured).abs().amax(-1) / largest.square(),
        # an ulp of the largest w^2 a step, times 1/(1-beta)
        tolerance=trajectory.resolution,
        times=times_of(trajectory),
    )


def positive_sums(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """S_+- > 0 and growing while no w_+- has changed sign, since r(z) >= 0 for z > 0.

    (docs/theory.md#path-sums.)
    It is evaluated up to the last recorded step before the first change, which `judged` names.
    """
    last = before_sign_changes(trajectory)
    sums = torch.cat([torch.zeros_like(trajectory.exponents[:, :1]), trajectory.exponents], 1)
    count, end = int(trajectory.sign_changes[-1]), int(trajectory.at[last])
    part = f"for k <= {end}, while no w_+- has changed sign" if count else trajectory.part
    return at_most(
        "MGD: S_+- grows from 0 with every recorded k (largest fall)",
        6,
        [*premises(m, trajectory), no_sign_change(trajectory, last)],
        predicted=0.0,
        measured=-sums[:, : last + 2].diff(dim=1).min(),
        # terms below an ulp round to either sign
        tolerance=ULP * float(trajectory.at[last]),
        judged=part,
    )


def _log_free(s: Snapshot) -> Tensor:
    assert s.increment_products is not None
    return log_free_balance(
        s.w_start, s.previous, s.w, s.increment_products, s.beta, s.initial_increment
    )[0]

"""What is exact at every step, whatever gamma, beta and the batches.

(docs/theory.md#finite-step-identity and docs/theory.md#log-free-identity; poster, section 6.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.theory.discrete_bias import log_free_balance
from dln_momentum.theory.trajectory import Trajectory
from dln_momentum.verification.course import (
    ULP,
    before_sign_changes,
    judged_snapshots,
    moved,
    no_sign_change,
    nowhere_zero,
    times_of,
)
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Statement, at_most, equal


def sums_from_gradients(evidence: Evidence, course: Trajectory) -> Statement:
    """S_+-, summed by definition, is -+ eps G_k - ln|w_{k+1}/w_0| less its boundary term."""
    found = [s.path_sums_from_gradients[:, 0] for s in judged_snapshots(evidence)[0]]
    closed = torch.stack(found, 1) + course.start_term[:, None]
    sizes = closed.abs().amax((0, 2)), course.exponents.abs().amax((0, 2))
    # eps G_k is itself a sum of k terms, each rounded to an ulp of the sum
    size = 1 + torch.fmin(*sizes)
    return equal(
        "MGD: S_+- = -+ eps G_k - ln|w_(k+1)/w_0| - beta/(1-beta) (1 - w_k/w_(k+1))",
        6,
        [moved(course), nowhere_zero(evidence, course)],
        predicted=closed[:, -1].sum(),
        measured=course.exponents[:, -1].sum(),
        error=(course.exponents - closed).abs().amax((0, 2)),
        tolerance=course.resolution * size,
        times=times_of(course),
    )


def log_free_identity(evidence: Evidence, course: Trajectory) -> Statement:
    """q = u^2 - v^2 from the increments alone: no logarithm, and nothing happens at a zero."""
    snapshots = judged_snapshots(evidence)[0]
    predicted = torch.stack([_log_free(s) for s in snapshots])
    measured = torch.stack([(s.w[0] * s.w[1])[0] for s in snapshots])
    first = course.w_start.abs()
    largest = torch.stack([torch.maximum(s.w[:, 0].abs(), first).max() for s in snapshots])
    return equal(
        "MGD: u^2 - v^2 = u_0^2 - v_0^2 + (1+beta)/(1-beta) sum (du^2 - dv^2) + boundary",
        6,
        [moved(course)],
        predicted=predicted[-1].sum(),
        measured=measured[-1].sum(),
        error=(predicted - measured).abs().amax(-1) / largest.square(),
        # an ulp of the largest w^2 a step, times 1/(1-beta)
        tolerance=course.resolution,
        times=times_of(course),
    )


def positive_sums(evidence: Evidence, course: Trajectory) -> Statement:
    """S_+- > 0 and growing while no w_+- has changed sign, since r(z) >= 0 for z > 0.

    It is judged up to the last recorded step before the first change, and says so.
    """
    last = before_sign_changes(course)
    sums = torch.cat([torch.zeros_like(course.exponents[:, :1]), course.exponents], 1)
    count, end = int(course.sign_changes[-1]), int(course.at[last])
    part = f"for k <= {end}, while no w_+- has changed sign" if count else course.part
    return at_most(
        "MGD: S_+- grows from 0 with every recorded k (largest fall)",
        6,
        [moved(course), nowhere_zero(evidence, course), no_sign_change(course, last)],
        predicted=0.0,
        measured=-sums[:, : last + 2].diff(dim=1).min(),
        # terms below an ulp round to either sign
        tolerance=ULP * float(course.at[last]),
        judged=part,
    )


def _log_free(s: Snapshot) -> Tensor:
    assert s.increment_products is not None
    return log_free_balance(
        s.w_start, s.previous, s.w, s.increment_products, s.beta, s.initial_increment
    )[0]

"""The run and the flow of a case as trajectories, and the hypotheses that they meet."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.theory.trajectory import Trajectory, in_range, log_spaced, trajectory_of_path
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Times

ULP = torch.finfo(torch.float64).eps
TIMES = 12


def discrete_course(evidence: Evidence) -> Trajectory:
    """The iterates at a few steps, with S_+- summed directly.

    Of the steps that were recorded those count at which float64 holds w_+- and Delta with all
    digits: up to the first at which it does not.
    """
    snapshots, part = judged_snapshots(evidence)
    end, case, momentum = evidence.snapshots[-1], evidence.case, evidence.momentum
    steps = torch.tensor([s.step for s in snapshots], dtype=torch.float64)
    w = torch.stack([s.w[:, 0] for s in snapshots], 1)
    start_term = momentum.lam * momentum.beta * case.dw / case.w
    # a snapshot counts the start term into S_+-
    sums = torch.stack([s.path_sums[:, 0] for s in snapshots], 1) + start_term[:, None]
    boundary = torch.stack([s.boundary[:, 0] for s in snapshots], 1)
    gradient = torch.stack([s.gradient_sum[0] for s in snapshots])
    signed = momentum.eps * torch.stack([gradient, -gradient])
    other = -signed - (w / case.w[:, None]).abs().log() - boundary + start_term[:, None]
    return Trajectory(
        label="MGD",
        exponent="S",
        time="k",
        at=steps,
        w_start=case.w,
        w=w,
        exponents=sums,
        boundary=boundary,
        start_term=start_term,
        # the second is what is left of huge terms that cancel, by whichever of two ways to S_+-
        # has them smaller: a wrong number cannot then excuse itself by its size
        resolution=rounding(steps, momentum.beta)
        + 8 * ULP * torch.fmin(_largest(sums), _largest(other))
        + 8 * ULP * _largest(boundary),
        sign_changes=torch.stack([s.sign_changes[0] for s in snapshots]),
        energy=float(end.loss[0]) + momentum.lam / 4 * float(_speed(evidence, end).square().sum()),
        tol=case.tol,
        part=part,
    )


def judged_snapshots(evidence: Evidence) -> tuple[list[Snapshot], str]:
    """The recorded steps after the start that can be judged, or the start, and what they cover."""
    snapshots = evidence.snapshots
    fine = in_range(torch.stack([s.w[:, 0] for s in snapshots], 1)).tolist()
    kept = fine.index(False) if False in fine else len(fine)
    last = snapshots[max(kept - 1, 0)].step
    part = ""
    if kept < len(snapshots):
        part = f"for k <= {last}: w_+- or Delta then leaves the range of float64"
    elif evidence.run_diverged:
        part = f"for k <= {last}: it then diverged"
    return snapshots[1:kept] or snapshots[:1], part


def _speed(evidence: Evidence, end: Snapshot) -> Tensor:
    """w_+-' at the end, [2, d], as far as it is known: the run carries beta times the increment."""
    increment = (end.w - end.previous)[:, 0]
    known = increment.abs() * evidence.momentum.beta > 8 * ULP * end.w[:, 0].abs()
    return increment.where(known, 0.0) / evidence.momentum.eps


def _largest(term: Tensor) -> Tensor:
    """The largest entry of [2, T, d] at each time, [T]."""
    return term.abs().amax((0, 2))


def rounding(steps: Tensor, beta: float) -> Tensor:
    """What rounding may add to S_+-: an ulp of w_+- a step, times 1/(1-beta), at worst all added.

    A step that lands at the share f of its length from zero counts as 1/f steps; the allowance of
    10,000 steps covers the nearest of many crossings.
    """
    return ULP * (steps + 10_000) / (1 - beta)


def continuous_course(evidence: Evidence) -> Trajectory:
    """The momentum flow at a few times, with I_+- summed from its definition."""
    path = evidence.momentum_path
    return trajectory_of_path(
        path,
        evidence.summed_integrals,
        log_spaced(path, TIMES),
        evidence.case.tol,
        evidence.case.w,
    )


def times_of(course: Trajectory, until: int | None = None) -> Times:
    """The times of a trajectory, for a statement that is judged at all of them."""
    return Times(course.time, course.at[:until], course.part)


def moved(course: Trajectory) -> Hypothesis:
    """Whether there is anything to look at: a run that blows up at once leaves its start."""
    last = float(course.at[-1])
    found = f"up to {course.time} = {last:.6g}" if last > 0 else f"{course.part or 'nothing'}"
    return Hypothesis("the run has finite steps that float64 resolves", last > 0, found)


def converged(course: Trajectory) -> Hypothesis:
    """Whether the run has come to rest at an interpolator, with Delta in float64's range."""
    found = f"energy {course.energy:.1e}, the tolerance is {course.tol:.1e}"
    if course.part:
        found += f"; judged {course.part}"
    return Hypothesis("converged", course.energy <= course.tol and not course.part, found)


def no_sign_change(course: Trajectory, place: int = -1) -> Hypothesis:
    """Whether no w_+- has changed sign up to one of the times."""
    count, end = int(course.sign_changes[place]), float(course.at[place])
    found = f"{count} by {course.time} = {end:.6g}"
    return Hypothesis("no w_+- changed sign", count == 0, found)


def at_rest(evidence: Evidence) -> Hypothesis:
    """Whether the start has no speed (C2)."""
    largest = float(evidence.case.dw.abs().max())
    return Hypothesis("the start is at rest", largest == 0, f"largest |w_+-'(0)| = {largest:.3g}")


def nowhere_zero(evidence: Evidence, course: Trajectory) -> Hypothesis:
    """Whether no w_{+-,k} was exactly zero, of which S_+- that is not finite is the sign.

    The written update then says whether there was one; if not, S_+- is wrong.
    """
    name = "no w_+- is exactly 0"
    if bool(course.exponents.isfinite().all()):
        return Hypothesis(name, True, "every S_+- is finite")
    step = evidence.zero_step
    found = "none, yet S_+- is not finite" if step is None else f"one is at k = {step}"
    return Hypothesis(name, step is None, found)


def before_sign_changes(course: Trajectory) -> int:
    """The last of the times up to which no w_+- changed sign, or the first of all."""
    return max(int((course.sign_changes == 0).sum()) - 1, 0)

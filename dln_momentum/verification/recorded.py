"""The run and the flow of a setting as recorded trajectories, and the hypotheses they meet."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.flows import FlowPath
from dln_momentum.flows.trajectory import (
    LARGEST,
    SMALLEST,
    RecordedTrajectory,
    log_spaced,
    times_in_range,
    trajectory_of_path,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import UNRESOLVED, Hypothesis, Times

ULP = torch.finfo(torch.float64).eps
TIMES = 12


def recorded_run(m: Measurements) -> RecordedTrajectory:
    """The iterates at a few steps, with S_+- summed directly.

    The steps are those before the first at which float64 does not hold w_+- and Delta with all
    digits.
    """
    snapshots, part = resolved_snapshots(m)
    end, setting, momentum = m.snapshots[-1], m.setting, m.momentum
    steps = torch.tensor([s.step for s in snapshots], dtype=torch.float64)
    w = torch.stack([s.w[:, 0] for s in snapshots], 1)
    start_term = (momentum.lam * momentum.beta * setting.dw / setting.w)[:, None]
    # a snapshot has the start term subtracted from S_+-
    sums = torch.stack([s.path_sums[:, 0] for s in snapshots], 1) + start_term
    boundary = torch.stack([s.boundary[:, 0] for s in snapshots], 1)
    gradient = torch.stack([s.gradient_sum[0] for s in snapshots])
    signed = momentum.eps * torch.stack([gradient, -gradient])
    other = -signed - (w / setting.w[:, None]).abs().log() - boundary + start_term
    counted = m.steps_near_zeros
    near_zeros = counted[steps.long().clamp_max(len(counted) - 1)]
    return RecordedTrajectory(
        label="MGD",
        exponent="S",
        time="k",
        at=steps,
        w_start=setting.w,
        w=w,
        exponents=sums,
        boundary=boundary,
        start_term=start_term,
        # the second is the rounding of large terms that cancel, for the one of two ways to S_+-
        # with the smaller terms: a wrong S_+- then does not enlarge its own tolerance
        resolution=rounding(steps, momentum.beta, near_zeros)
        + 8 * ULP * torch.fmin(_largest(sums), _largest(other))
        + 8 * ULP * _largest(boundary),
        sign_changes=torch.stack([s.sign_changes[0] for s in snapshots]),
        energy=float(end.loss[0]) + momentum.lam / 4 * float(_speed(m, end).square().sum()),
        tol=setting.tol,
        part=part,
    )


def resolved_snapshots(m: Measurements) -> tuple[list[Snapshot], str]:
    """The snapshots after the start within the range of float64, or the start; and the part."""
    snapshots = m.snapshots
    kept = times_in_range(torch.stack([s.w[:, 0] for s in snapshots], 1))
    last = snapshots[max(kept - 1, 0)].step
    part = ""
    if kept < len(snapshots):
        part = f"for k <= {last}: w_+- or Delta then leaves the range of float64"
    elif m.run_diverged:
        part = f"for k <= {last}: it then diverged"
    return snapshots[1:kept] or snapshots[:1], part


def _speed(m: Measurements, end: Snapshot) -> Tensor:
    """w_+-' at the end, [2, d]; 0 where rounding hides it: beta times the increment is stored."""
    increment = (end.w - end.previous)[:, 0]
    known = increment.abs() * m.momentum.beta > 8 * ULP * end.w[:, 0].abs()
    return increment.where(known, 0.0) / m.momentum.eps


def _largest(term: Tensor) -> Tensor:
    """The largest entry of [2, T, d] at each time, [T]."""
    return term.abs().amax((0, 2))


def rounding(steps: Tensor, beta: float, near_zeros: Tensor) -> Tensor:
    """Bound on the rounding of S_+-: an ulp of w_+- a step, times 1/(1-beta), all of one sign.

    A step that ends at a fraction f of its length from zero counts as 1/f steps; the allowance of
    10,000 steps covers the nearest of many crossings, or ``near_zeros`` where that is more.
    """
    return ULP * (steps + near_zeros.clamp_min(10_000.0)) / (1 - beta)


def recorded_flow(m: Measurements) -> RecordedTrajectory:
    """The momentum flow at a few times, with I_+- summed from its definition."""
    path = m.momentum_path
    return trajectory_of_path(
        path, m.summed_integrals, log_spaced(path, TIMES), m.setting.tol, m.setting.w
    )


def times_of(trajectory: RecordedTrajectory) -> Times:
    """The times of a trajectory, for a statement that is evaluated at all of them."""
    return Times(trajectory.time, trajectory.at, trajectory.part)


def moved(trajectory: RecordedTrajectory) -> Hypothesis:
    """Whether there is a step to evaluate; a run may diverge at once."""
    last = float(trajectory.at[-1])
    found = (
        f"up to {trajectory.time} = {last:.6g}" if last > 0 else f"{trajectory.part or 'nothing'}"
    )
    return Hypothesis("the run has finite steps that float64 resolves", last > 0, found)


def converged(trajectory: RecordedTrajectory) -> Hypothesis:
    """Whether the energy is at most the tolerance, with Delta in the range of float64."""
    found = f"energy {trajectory.energy:.1e}, the tolerance is {trajectory.tol:.1e}"
    if trajectory.part:
        found += f"; judged {trajectory.part}"
    return Hypothesis(
        "converged", trajectory.energy <= trajectory.tol and not trajectory.part, found
    )


def no_sign_change(trajectory: RecordedTrajectory, place: int = -1) -> Hypothesis:
    """Whether no w_+- has changed sign up to one of the times."""
    count, end = int(trajectory.sign_changes[place]), float(trajectory.at[place])
    found = f"{count} by {trajectory.time} = {end:.6g}"
    return Hypothesis("no w_+- changed sign", count == 0, found)


def at_rest(m: Measurements) -> Hypothesis:
    """Whether the start has no speed (C2)."""
    largest = float(m.setting.dw.abs().max())
    return Hypothesis("the start is at rest", largest == 0, f"largest |w_+-'(0)| = {largest:.3g}")


def full_batch(m: Measurements) -> Hypothesis:
    """Whether the discrete run has neither mini-batches nor label noise."""
    sampled = "batches or label noise" if m.setting.stochastic else "no batches, no label noise"
    return Hypothesis("every step follows the full gradient", not m.setting.stochastic, sampled)


def nowhere_zero(m: Measurements, trajectory: RecordedTrajectory) -> Hypothesis:
    """Whether no w_{+-,k} was exactly zero, where S_+- is not finite.

    Whether there was a zero is found by the written update; without one, S_+- is wrong.
    """
    name = "no w_+- is exactly 0"
    if bool(trajectory.exponents.isfinite().all()):
        return Hypothesis(name, True, "every S_+- is finite")
    step = m.zero_step
    found = "none, yet S_+- is not finite" if step is None else f"one is at k = {step}"
    return Hypothesis(name, step is None, found)


def before_sign_changes(trajectory: RecordedTrajectory) -> int:
    """The last of the times up to which no w_+- changed sign, or the first of all."""
    return max(int((trajectory.sign_changes == 0).sum()) - 1, 0)


def premises(m: Measurements, trajectory: RecordedTrajectory) -> list[Hypothesis]:
    """The hypotheses of every statement about the exponents of a trajectory."""
    return [moved(trajectory), nowhere_zero(m, trajectory)]


def resolved(what: str, sizes: Tensor, tolerance: Tensor | float) -> Hypothesis:
    """Whether the errors allowed hide all of what a statement is about: it could not fail then.

    Args:
        what: a statement's term, in its symbols.
        sizes: of the term at each time, [T].
        tolerance: of the statement, a number or [T].
    """
    allowed = torch.as_tensor(tolerance, dtype=torch.float64).expand(len(sizes))
    met = bool((~(allowed > UNRESOLVED * sizes)).any())
    found = f"up to {float(sizes.max()):.1e}, errors up to {float(allowed[-1]):.1e}"
    return Hypothesis(f"{what} is larger than what its errors hide", met, found)


def exponents_resolved(trajectory: RecordedTrajectory) -> Hypothesis:
    """Whether S~_+- or I~_+-, or ln(Delta_t/Delta_0), is larger than its error at some time.

    An exponent that is not finite is a fault, for the statement to find.
    """
    measured = (trajectory.balancedness / trajectory.balancedness_start).log().abs().amax(-1)
    sizes = torch.maximum(_largest(trajectory.exponents_with_boundary), measured)
    sizes = torch.where(sizes.isfinite(), sizes, torch.inf)
    return resolved(f"{trajectory.exponent}~_+-", sizes, 2 * trajectory.resolution)


def not_every_vector(m: Measurements) -> Hypothesis:
    """Whether span(x_1..x_n) is not all of R^d, where nothing would lie outside it."""
    rank, d = m.problem.row_space.rank, m.problem.d
    return Hypothesis("a vector can lie outside span(x_1..x_n)", rank < d, f"rank {rank}, d = {d}")


def delta_in_range(delta: Tensor, name: str) -> Hypothesis:
    """Whether float64 holds every entry of Delta, and products of them, with all digits."""
    found = f"from {float(delta.min()):.1e} to {float(delta.max()):.1e}"
    within = bool(((delta >= SMALLEST) & (delta <= LARGEST)).all())
    return Hypothesis(f"{name} is in the range of float64", within, found)


def explicit_part(path: FlowPath) -> str:
    """The part of the time that a path of the explicit method covers; empty for all of it."""
    return "" if path.converged else f"for t <= {float(path.t[-1]):.6g}, by the explicit method"

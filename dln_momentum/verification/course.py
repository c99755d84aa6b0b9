"""A run in discrete or in continuous time, at a few of its times, as the theory sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.flow import FlowPath, SummedIntegrals, boundary_terms
from dln_momentum.implicit_bias import asymptotic_balancedness, log_init
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis

ULP = torch.finfo(torch.float64).eps
LOCAL_ERRORS = 50
"""How many of the solver's local errors, of a thousand or so, add up at worst."""
TIMES = 12


@dataclass(frozen=True, eq=False)
class Course:
    """Iterates or a path, with the exponents that shrink |w_+-| summed by their definition.

    Discrete and continuous time differ in these exponents alone: S_+- and I_+-, both with a
    boundary term that vanishes at convergence. Index 0 of an axis of 2 is w_+, index 1 w_-.

    Attributes:
        label: "MGD" or "MGF".
        exponent, time: how the exponents and the time are written: S and k, or I and t.
        at: the times, [T]; the last is the end.
        w_start: w_+- at the start, [2, d].
        w: w_+- at these times, [2, T, d].
        exponents: S_+- or I_+-, [2, T, d].
        boundary: the boundary terms, [2, T, d].
        resolution: the error that the exponents may have by their computation, [T].
        sign_changes: of the entries of w_+- up to these times, [T].
        energy: F + lambda/2 ||w'||^2 at the end.
        tol: the energy that counts as converged.
    """

    label: str
    exponent: str
    time: str
    at: Tensor
    w_start: Tensor
    w: Tensor
    exponents: Tensor
    boundary: Tensor
    resolution: Tensor
    sign_changes: Tensor
    energy: float
    tol: float

    @cached_property
    def theta(self) -> Tensor:
        """theta = (w_+^2 - w_-^2)/4, [T, d]."""
        return (self.w[0] - self.w[1]) * (self.w[0] + self.w[1]) / 4

    @cached_property
    def balancedness(self) -> Tensor:
        """Delta = |w_+ w_-|, [T, d]."""
        return (self.w[0] * self.w[1]).abs()

    @cached_property
    def balancedness_start(self) -> Tensor:
        """Delta_0, [d]."""
        return (self.w_start[0] * self.w_start[1]).abs()

    @cached_property
    def kept_exponents(self) -> Tensor:
        """The exponents with the boundary terms kept, exact before any convergence, [2, T, d]."""
        return self.exponents + self.boundary

    @cached_property
    def predicted_balancedness(self) -> Tensor:
        """Delta_0 exp(-(S~_+ + S~_-)), [T, d]."""
        plus, minus = self.kept_exponents
        return asymptotic_balancedness(self.balancedness_start, plus, minus)

    @cached_property
    def log_init(self) -> Tensor:
        """c = arcsinh(2 theta~/Delta) of the perturbed initialisation at each time, [T, d]."""
        plus, minus = self.kept_exponents
        return log_init(self.w_start[0], self.w_start[1], plus, minus)

    @cached_property
    def limit(self) -> tuple[Tensor, Tensor]:
        """Delta_inf and c of theta~_0, [d] each, from the exponents at the end alone."""
        plus, minus = self.exponents[:, -1]
        return (
            asymptotic_balancedness(self.balancedness_start, plus, minus),
            log_init(self.w_start[0], self.w_start[1], plus, minus),
        )

    @property
    def limit_resolution(self) -> float:
        """What the limit may be off by: rounding, and what is left of the boundary terms."""
        return float(self.resolution[-1] + self.boundary[:, -1].abs().max())

    @property
    def moved(self) -> Hypothesis:
        """Whether there is anything to look at: a run that blows up at once leaves its start."""
        return Hypothesis("the run is finite", float(self.at[-1]) > 0, "it diverged at once")

    @property
    def converged(self) -> Hypothesis:
        """Whether the run has come to rest at an interpolator."""
        found = f"energy {self.energy:.1e} at {self.time} = {float(self.at[-1]):.6g}"
        return Hypothesis("converged", self.energy <= self.tol, found)

    def no_sign_change(self, place: int = -1) -> Hypothesis:
        """Whether no w_+- has changed sign up to one of the times."""
        count, end = int(self.sign_changes[place]), float(self.at[place])
        found = f"{count} by {self.time} = {end:.6g}"
        return Hypothesis("no w_+- changed sign", count == 0, found)

    @property
    def before_sign_changes(self) -> int:
        """The last of the times up to which no w_+- changed sign, or the first of all."""
        return max(int((self.sign_changes == 0).sum()) - 1, 0)


def discrete_course(evidence: Evidence) -> Course:
    """The iterates at a few steps, with S_+- summed directly."""
    return _course_of_snapshots(evidence, evidence.snapshots)


def _course_of_snapshots(evidence: Evidence, snapshots: list[Snapshot]) -> Course:
    end, momentum = snapshots[-1], evidence.momentum
    increment = (end.w - end.previous)[:, 0]
    # what is known of it, since the run carries beta times it
    known = increment.abs() * momentum.beta > 8 * ULP * end.w[:, 0].abs()
    speed = increment.where(known, 0.0) / momentum.eps
    steps = torch.tensor([s.step for s in snapshots], dtype=torch.float64)
    sums = torch.stack([s.path_sums[:, 0] for s in snapshots], 1)
    boundary = torch.stack([s.boundary[:, 0] for s in snapshots], 1)
    return Course(
        label="MGD",
        exponent="S",
        time="k",
        at=steps,
        w_start=end.w_start[:, 0],
        w=torch.stack([s.w[:, 0] for s in snapshots], 1),
        exponents=sums,
        boundary=boundary,
        # the second is what is left of huge terms that cancel
        resolution=rounding(steps, momentum.beta) + 8 * ULP * _largest(sums, boundary),
        sign_changes=torch.stack([s.sign_changes[0] for s in snapshots]),
        energy=float(end.loss[0]) + momentum.lam / 4 * float(speed.square().sum()),
        tol=evidence.case.tol,
    )


def solver_error(path: FlowPath) -> float:
    """What the solver of a flow may add to a logarithm or to G, which cancel in I_+-."""
    return LOCAL_ERRORS * loosest(path) * (1 + float(path.G.abs().max()))


def loosest(path: FlowPath) -> float:
    """The relative error of the solver's steps; no claim is made below 1e-9."""
    return max([1e-9, *(report.rtol for report in path.solvers)])


def _largest(*terms: Tensor) -> Tensor:
    """The largest entry of [2, T, d] at each time, all terms added up, [T]."""
    return torch.stack([term.abs().amax((0, 2)) for term in terms]).sum(0)


def rounding(steps: Tensor, beta: float) -> Tensor:
    """What rounding may add to S_+-: an ulp of w_+- a step, times 1/(1-beta), at worst all added.

    A step that lands at the share f of its length from zero counts as 1/f steps; the allowance of
    10,000 steps covers the nearest of many crossings.
    """
    return ULP * (steps + 10_000) / (1 - beta)


def continuous_course(evidence: Evidence) -> Course:
    """The momentum flow at a few times, with I_+- summed from its definition."""
    path = evidence.momentum_path
    return course_of_path(
        path, evidence.summed_integrals, log_spaced(path, TIMES), evidence.case.tol
    )


def course_of_path(
    path: FlowPath, summed: SummedIntegrals | None, places: Tensor, tol: float
) -> Course:
    """A flow at some of its times.

    Args:
        path: every step of the solver.
        summed: its I_+- by definition; None for gradient flow, which has none.
        places: indices of times of the path.
        tol: the energy that counts as converged.
    """
    w = torch.stack([path.w_plus, path.w_minus])
    flips = (w[:, 1:] * w[:, :-1] < 0).sum((0, 2))
    zero = torch.zeros_like(w)
    exponents = zero if summed is None else torch.stack([summed.i_plus, summed.i_minus])
    uncertainty = torch.zeros_like(path.t) if summed is None else summed.uncertainty
    return Course(
        label="MGF",
        exponent="I",
        time="t",
        at=path.t[places],
        w_start=w[:, 0],
        w=w[:, places],
        exponents=exponents[:, places],
        boundary=(zero if summed is None else torch.stack(boundary_terms(path)))[:, places],
        resolution=solver_error(path) + uncertainty[places],
        sign_changes=torch.cat([flips.new_zeros(1), flips.cumsum(0)])[places],
        energy=float(path.energy[-1]),
        tol=tol,
    )


def log_spaced(path: FlowPath, count: int) -> Tensor:
    """Indices of log-spaced times of the path, from its first step to its end."""
    if len(path.t) == 1:
        return torch.zeros(1, dtype=torch.int64)
    first, last = float(path.t[1].log10()), float(path.t[-1].log10())
    times = torch.logspace(first, last, count, dtype=torch.float64)
    return torch.searchsorted(path.t, times).clamp(1, len(path.t) - 1).unique()

"""A run in discrete or in continuous time at a few of its times, with the theory's formulas.

Discrete and continuous time differ in the exponents alone: S_+- and I_+-, both summed by their
definition here. With X for either and w_+-' for the speed,

    X~_{+-,t} = X_{+-,t} + end_{+-,t} - start_+-,    |w_{+-,t}| = |w_{+-,0}| e^{-+g_t - X~_{+-,t}},

with g_t in the row space, end = lambda w'_t/w_t or beta/(1-beta) (1 - w_{k-1}/w_k), and start the
same at the start, zero from rest. At convergence the end term vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.flows import FlowPath, SummedIntegrals
from dln_momentum.problem import Problem
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, kkt_residual, log_init

LOCAL_ERRORS = 50
"""How many of the solver's local errors, of a thousand or so, add up at worst."""

SMALLEST, LARGEST = 1e-290, 1e150
"""|w_+-| and Delta inside these bounds have all their digits, and so have their products."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Iterates or a path at some of its times, with the exponents that shrink |w_+-|.

    Index 0 of an axis of 2 is w_+, index 1 is w_-.

    Attributes:
        label: "MGD" or "MGF".
        exponent, time: how the exponents and the time are written: S and k, or I and t.
        at: the times, [T]; the last is the end.
        w_start: w_+- at the start, [2, d].
        w: w_+- at these times, [2, T, d].
        exponents: S_+- or I_+- by definition, [2, T, d].
        boundary: the end terms, [2, T, d].
        start_term: the start terms, [2, d].
        resolution: the error that the exponents may have by their computation, [T].
        sign_changes: of the entries of w_+- up to these times, [T].
        energy: F + lambda/2 ||w'||^2 at the end.
        tol: the energy that counts as converged.
        part: which part of the run these times cover; empty for all of it.
    """

    label: str
    exponent: str
    time: str
    at: Tensor
    w_start: Tensor
    w: Tensor
    exponents: Tensor
    boundary: Tensor
    start_term: Tensor
    resolution: Tensor
    sign_changes: Tensor
    energy: float
    tol: float
    part: str = ""

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
    def exponents_with_boundary(self) -> Tensor:
        """X~: the exponents with both boundary terms, exact before any convergence, [2, T, d]."""
        return self.exponents + self.boundary - self.start_term[:, None]

    @cached_property
    def predicted_balancedness(self) -> Tensor:
        """Delta_0 exp(-(X~_+ + X~_-)), [T, d]."""
        return asymptotic_balancedness(self.balancedness_start, *self.exponents_with_boundary)

    @cached_property
    def log_init(self) -> Tensor:
        """c = arcsinh(2 theta~/Delta) of the perturbed initialisation at each time, [T, d]."""
        return log_init(self.w_start[0], self.w_start[1], *self.exponents_with_boundary)

    @cached_property
    def limit_exponents(self) -> Tensor:
        """The exponents as the end alone tells them, the end term counted as gone, [2, d]."""
        return self.exponents[:, -1] - self.start_term

    @cached_property
    def limit(self) -> tuple[Tensor, Tensor]:
        """Delta_inf and c of theta~_0, [d] each, from the exponents at the end alone."""
        return (
            asymptotic_balancedness(self.balancedness_start, *self.limit_exponents),
            log_init(self.w_start[0], self.w_start[1], *self.limit_exponents),
        )

    @property
    def limit_resolution(self) -> float:
        """What the limit may be off by: rounding, and what is left of the end terms."""
        return float(self.resolution[-1] + self.boundary[:, -1].abs().max())

    @cached_property
    def usable(self) -> Tensor:
        """Where the predicted potential is one: 0 < Delta < inf and c finite, [T]."""
        delta = self.predicted_balancedness
        return ((delta > 0) & delta.isfinite() & self.log_init.isfinite()).all(-1)

    def certificate(self, problem: Problem) -> Tensor:
        """The KKT residual of theta at each time, [T]; nan where the potential is none."""
        delta, c = self.predicted_balancedness, self.log_init
        theta, delta, c = (
            torch.where(self.usable[:, None], x, 1.0) for x in (self.theta, delta, c)
        )
        residual = kkt_residual(problem.row_space, theta, delta, c)
        return torch.where(self.usable, residual, torch.nan)


def in_range(w: Tensor) -> Tensor:
    """Where w_+- [2, T, d] and Delta have all their digits in float64, [T].

    >>> in_range(torch.tensor([[[1.0], [1e-200]], [[1.0], [1e-200]]], dtype=torch.float64))
    tensor([ True, False])
    """
    sizes = torch.cat([w.abs(), (w[0] * w[1]).abs()[None]])
    return ((sizes >= SMALLEST) & (sizes <= LARGEST)).all(0).all(-1)


def trajectory_of_path(
    path: FlowPath,
    summed: SummedIntegrals | None,
    places: Tensor,
    tol: float,
    start: Tensor | None = None,
) -> Trajectory:
    """A flow at some of its times.

    Args:
        path: every step of the solver.
        summed: its I_+- by definition; None for gradient flow, which has none.
        places: indices of times of the path; of the times at which float64 holds w_+- and Delta
            with all digits, those up to the first at which it does not are kept.
        tol: the energy that counts as converged.
        start: w_+- at the start as they were asked for, [2, d]; those of the path without them.
    """
    w = torch.stack([path.w_plus, path.w_minus])
    start = w[:, 0] if start is None else start
    places, part = _judged_places(path, places, w)
    flips = (w[:, 1:] * w[:, :-1] < 0).sum((0, 2))
    zero = torch.zeros_like(w)
    exponents = zero if summed is None else torch.stack([summed.i_plus, summed.i_minus])
    uncertainty = torch.zeros_like(path.t) if summed is None else summed.uncertainty
    speed = path.lam * torch.stack([path.dw_plus, path.dw_minus]) / w
    return Trajectory(
        label="MGF",
        exponent="I",
        time="t",
        at=path.t[places],
        w_start=start,
        w=w[:, places],
        exponents=exponents[:, places],
        boundary=speed[:, places],
        start_term=speed[:, 0],
        resolution=solver_error(path) + uncertainty[places],
        sign_changes=torch.cat([flips.new_zeros(1), flips.cumsum(0)])[places],
        energy=float(path.energy[-1]),
        tol=tol,
        part=part,
    )


def _judged_places(path: FlowPath, places: Tensor, w: Tensor) -> tuple[Tensor, str]:
    fine = in_range(w[:, places])
    kept = int(fine.long().cumprod(0).sum())
    if kept == len(places):
        return places, _given_up(path)
    # a start out of range leaves nothing: the first place stands for the start
    places = places[: max(kept, 1)]
    last = float(path.t[places[-1]]) if kept else 0.0
    return places, f"for t <= {last:.6g}: w_+- or Delta then leaves the range of float64"


def _given_up(path: FlowPath) -> str:
    failed = path.status.value == "failed"
    return f"for t <= {float(path.t[-1]):.6g}, where the solver was given up" if failed else ""


def solver_error(path: FlowPath) -> float:
    """What the solver of a flow may add to a logarithm or to G, which cancel in I_+-."""
    return LOCAL_ERRORS * loosest(path) * (1 + float(path.G.abs().max()))


def loosest(path: FlowPath) -> float:
    """The relative error of the solver's steps; no claim is made below 1e-9."""
    return max([1e-9, *(report.rtol for report in path.solvers)])


def log_spaced(path: FlowPath, count: int) -> Tensor:
    """Indices of log-spaced times of the path, from its first step to its end."""
    if len(path.t) == 1:
        return torch.zeros(1, dtype=torch.int64)
    first, last = float(path.t[1].log10()), float(path.t[-1].log10())
    times = torch.logspace(first, last, count, dtype=torch.float64)
    return torch.searchsorted(path.t, times).clamp(1, len(path.t) - 1).unique()

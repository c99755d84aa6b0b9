"""A run or a flow at a few of its times, and the conversion of a path to one.

The choice of the times and the error bound of the exponents depend on the solver of the path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.flows.path import FlowPath
from dln_momentum.flows.quadrature import SummedIntegrals
from dln_momentum.flows.stepping import FlowStatus
from dln_momentum.theory.trajectory import Trajectory, balancedness_of

LOCAL_ERRORS = 50
"""Bound on the number of the solver's local errors, of about a thousand, that add up."""

SMALLEST, LARGEST = 1e-290, 1e150
"""|w_+-| and Delta within these bounds have all their digits, and so have their products."""


@dataclass(frozen=True, eq=False)
class RecordedTrajectory(Trajectory):
    """One run or one flow at T of its times: the tensors of `Trajectory`, [2, T, d], and more.

    Attributes:
        label: "MGD" or "MGF".
        exponent, time: how the exponents and the time are written: S and k, or I and t.
        at: the times, [T]; the last is the end.
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

    @property
    def limit_resolution(self) -> float:
        """Error bound of ln of the limit: rounding, and the remaining boundary term."""
        return float(self.resolution[-1] + self.boundary[:, -1].abs().max())


def trajectory_of_path(
    path: FlowPath,
    summed: SummedIntegrals | None,
    indices: Tensor,
    tol: float,
    start: Tensor | None = None,
) -> RecordedTrajectory:
    """A flow at some of its times.

    Args:
        path: every step of the solver.
        summed: its I_+- by definition; None for gradient flow, which has none.
        indices: of times of the path; they are cut before the first at which float64 does not
            hold w_+- and Delta with all digits.
        tol: the energy that counts as converged.
        start: the requested w_+- at t = 0, [2, d]; those of the path if left out.
    """
    w = path.w
    indices, part = _resolved(path, indices)
    crossed = sign_changes_between(path)
    exponents = torch.zeros_like(w) if summed is None else summed.integrals
    uncertainty = torch.zeros_like(path.t) if summed is None else summed.uncertainty
    ends = torch.cat([indices.new_zeros(1), indices])
    memory = path.memory if isinstance(path.memory, float) else path.memory[ends]
    boundary = memory * path.dw[:, ends] / w[:, ends]
    return RecordedTrajectory(
        label="MGF",
        exponent="I",
        time="t",
        at=path.t[indices],
        w_start=w[:, 0] if start is None else start,
        w=w[:, indices],
        exponents=exponents[:, indices],
        boundary=boundary[:, 1:],
        start_term=boundary[:, :1],
        resolution=solver_error(path) + uncertainty[indices],
        sign_changes=torch.cat([crossed.new_zeros(1), crossed.cumsum(0)])[indices],
        energy=float(path.energy[-1]),
        tol=tol,
        part=part,
    )


def sign_changes_between(path: FlowPath) -> Tensor:
    """Sign changes of the entries of w_+- in each interval between times of the path, [T - 1]."""
    if path.sums is not None:
        return path.sums.sign_changes
    signs = path.w.sign()  # products of entries below 1e-162 would be 0
    return (signs[:, 1:] * signs[:, :-1] < 0).sum((0, 2))


def _resolved(path: FlowPath, indices: Tensor) -> tuple[Tensor, str]:
    """The indices before the first at which w_+- leaves the range, and what they cover."""
    kept = times_in_range(path.w[:, indices])
    if kept == len(indices):
        ended = f"for t <= {float(path.t[-1]):.6g}, where the solver failed"
        return indices, ended if path.status is FlowStatus.FAILED else ""
    # where even the start is out of range, keep the first index as a placeholder
    indices = indices[: max(kept, 1)]
    last = float(path.t[indices[-1]]) if kept else 0.0
    return indices, f"for t <= {last:.6g}: w_+- or Delta then leaves the range of float64"


def in_range(w: Tensor) -> Tensor:
    """Where w_+- [2, T, d] and Delta have all their digits in float64, [T].

    >>> in_range(torch.tensor([[[1.0], [1e-200]], [[1.0], [1e-200]]], dtype=torch.float64))
    tensor([ True, False])
    """
    sizes = torch.cat([w.abs(), balancedness_of(w)[None]])
    return ((sizes >= SMALLEST) & (sizes <= LARGEST)).all(0).all(-1)


def times_in_range(w: Tensor) -> int:
    """How many times there are before the first at which w_+- [2, T, d] is not `in_range`."""
    return int(in_range(w).long().cumprod(0).sum())


def solver_error(path: FlowPath) -> float:
    """Bound on the solver's error of ln|w_+-| and of G, which cancel in I_+-."""
    return LOCAL_ERRORS * largest_rtol(path) * (1 + float(path.G.abs().max()))


def largest_rtol(path: FlowPath) -> float:
    """The largest relative error of the solver's steps, at least 1e-9."""
    return max([1e-9, *(report.rtol for report in path.solvers)])


def log_spaced(path: FlowPath, count: int) -> Tensor:
    """Indices of log-spaced times of the path, from its first step to its end."""
    if len(path.t) == 1:
        return torch.zeros(1, dtype=torch.int64)
    first, last = float(path.t[1].log10()), float(path.t[-1].log10())
    times = torch.logspace(first, last, count, dtype=torch.float64)
    return torch.searchsorted(path.t, times).clamp(1, len(path.t) - 1).unique()

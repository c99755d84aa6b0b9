"""How a run stands: an ending is a recorded result, never an exception."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor


class Status(IntEnum):
    """The state of one run."""

    RUNNING = 0
    CONVERGED = 1
    """the training loss is at or below the tolerance"""
    DIVERGED = 2
    """the loss is not finite, or beyond the bound times its first value"""
    MAX_STEPS = 3
    """the step budget is spent"""
    INVALID = 4
    """no run exists at this point of a grid: beta is outside [0, 1)"""

    @property
    def label(self) -> str:
        """The name that files and tables show.

        >>> Status.MAX_STEPS.label
        'max_steps'
        """
        return self.name.lower()


def judge(loss: Tensor, ceiling: Tensor, tol: float) -> Tensor:
    """`Status` of runs by their loss, int64 [R]: converged, diverged, or still running.

    Args:
        loss: now, [R].
        ceiling: `divergence_ceiling` of the runs, [R].
        tol: converged at or below it; -inf for never.

    >>> losses = torch.tensor([1e-30, 0.5, 1e20, torch.nan])
    >>> judge(losses, torch.full((4,), 1e10), tol=1e-24).tolist()
    [1, 0, 2, 2]
    """
    # nan compares false, so "not within the ceiling" is also "not finite"
    diverged = torch.where(loss <= ceiling, int(Status.RUNNING), int(Status.DIVERGED))
    return torch.where(loss <= tol, int(Status.CONVERGED), diverged)


def divergence_ceiling(loss_start: Tensor, tol: float, divergence_bound: float) -> Tensor:
    """The loss above which a run has diverged, [R], finite whatever its first loss was.

    >>> divergence_ceiling(torch.tensor([2.0, 0.0]), tol=1e-6, divergence_bound=100.0)
    tensor([2.0000e+02, 1.0000e-04])
    """
    kind = torch.finfo(loss_start.dtype)
    # a start at an interpolator has a ceiling too: inf times 0 would be nan
    first = loss_start.clamp_min(max(tol, kind.tiny))
    return (divergence_bound * first).clamp_max(kind.max)

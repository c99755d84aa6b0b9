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


def judge(loss: Tensor, loss_start: Tensor, tol: float, divergence_bound: float) -> Tensor:
    """`Status` of runs by their loss, int64 [R]: converged, diverged, or still running.

    Args:
        loss: now, [R].
        loss_start: at step 0, [R].
        tol: converged at or below it; -inf for never.
        divergence_bound: diverged beyond this many times ``loss_start``, or if not finite.

    >>> losses = torch.tensor([1e-30, 0.5, 1e20, torch.nan])
    >>> judge(losses, torch.ones(4), tol=1e-24, divergence_bound=1e10).tolist()
    [1, 0, 2, 2]
    """
    # nan compares false, so "not within the bound" is also "not finite"
    kind = torch.finfo(loss.dtype)
    # a start at an interpolator has a bound too: inf times 0 would be nan
    first = loss_start.clamp_min(max(tol, kind.tiny))
    bound = (divergence_bound * first).clamp_max(kind.max)
    within = loss <= bound
    # arithmetic, since a block of steps of one run is as short as a few selections
    return (loss <= tol).long().add_(~within, alpha=int(Status.DIVERGED))

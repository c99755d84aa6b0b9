"""How a run stands: an ending is a recorded result, never an exception."""

from __future__ import annotations

from enum import IntEnum


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

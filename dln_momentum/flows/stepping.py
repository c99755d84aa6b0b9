"""Step SciPy solvers through output times; stop at convergence or at a step limit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

import numpy as np
from scipy.integrate import OdeSolver

from dln_momentum.flows.kept_steps import KeptSteps

PROGRESS_INTERVAL = 10.0
"""Seconds between two log messages on the progress of a running integration."""

logger = logging.getLogger(__name__)


class FlowStatus(StrEnum):
    """How an integration ended."""

    CONVERGED = "converged"
    TIME_REACHED = "time_reached"
    FAILED = "failed"


@dataclass
class IntegratorState:
    """States at output times, and how the integration ended; filled by `run`.

    Attributes:
        times: increasing output times >= 0, from the solver's dense output; None records every
            step. The two ends of the integration are always recorded.
        converged: (state, t) -> stop here.
        max_steps: steps after which the integration counts as failed.
        kept: where states are recorded.
        keep_steps: whether every step is recorded beside the output times.
        watched: for the first so many entries of the state, sign changes are counted at every
            step, whatever the output times.
    """

    times: np.ndarray | None
    converged: Callable[[np.ndarray, float], bool]
    max_steps: int
    kept: KeptSteps
    watched: int = 0
    keep_steps: bool = False
    status: FlowStatus = FlowStatus.TIME_REACHED
    message: str = ""
    steps: int = 0

    def __post_init__(self) -> None:
        self.sign_changes = np.zeros(self.watched, dtype=np.int64)
        self._next_message = monotonic() + PROGRESS_INTERVAL

    def run(self, solver: OdeSolver, before_step: Callable[[], None] | None = None) -> None:
        """Step a new solver to its bound, or to the first accepted state that has converged.

        A failure of the solver becomes the status; the states before it stay recorded.

        Args:
            solver: at its start.
            before_step: called before every step.
        """
        self._record_outputs(solver)
        while not self.converged(solver.y, solver.t):
            if solver.status == "finished":
                return
            if before_step is not None:
                before_step()
            before = solver.y[: self.watched]
            if message := self._step(solver):
                self.status, self.message = FlowStatus.FAILED, message
                return
            self.steps += 1
            self._log_progress(solver.t)
            self.sign_changes += np.signbit(before) != np.signbit(solver.y[: self.watched])
            self._record_outputs(solver)
        self.status = FlowStatus.CONVERGED

    def _step(self, solver: OdeSolver) -> str | None:
        if self.steps >= self.max_steps:
            return f"more than {self.max_steps} steps, at t = {solver.t:.4g}"
        message = solver.step()
        if message is None and not np.isfinite(solver.y).all():
            return "the state is no longer finite"
        return message

    def _log_progress(self, t: float) -> None:
        if monotonic() >= self._next_message:
            self._next_message = monotonic() + PROGRESS_INTERVAL
            logger.info("flow: at t = %.6g after %d steps", t, self.steps)

    def _record_outputs(self, solver: OdeSolver) -> None:
        """Record the start, and the outputs that the last step made available."""
        kept = self.kept
        if self.times is None or not len(kept):
            kept.append(solver.t, solver.y)
        if self.times is None:
            return
        due = self.times[slice(*np.searchsorted(self.times, [kept.t[-1], solver.t], side="right"))]
        if due.size:
            # one call for all of them; at the end of a step the state itself, not its interpolation
            states = solver.dense_output()(due).T
            for t, state in zip(due, states, strict=True):
                kept.append(t, solver.y if t == solver.t else state)
        if self.keep_steps:
            kept.append(solver.t, solver.y)

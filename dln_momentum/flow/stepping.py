"""March a SciPy solver through output times, stop at convergence, and never hang."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from scipy.integrate import OdeSolver


class FlowStatus(StrEnum):
    """How an integration ended."""

    CONVERGED = "converged"
    TIME_REACHED = "time_reached"
    FAILED = "failed"


@dataclass
class March:
    """What `march` leaves: states at times t, how it ended, and sign changes on the way."""

    t: list[float] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    status: FlowStatus = FlowStatus.TIME_REACHED
    message: str = ""
    steps: int = 0
    sign_changes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def record(self, t: float, state: np.ndarray) -> None:
        """Append one output; a time that is already there is not repeated."""
        if not self.t or t > self.t[-1]:
            self.t.append(float(t))
            self.states.append(state.copy())

    def end(self, status: FlowStatus, message: str = "") -> March:
        """Close the record."""
        self.status, self.message = status, message
        return self


def march(
    solver: OdeSolver,
    times: np.ndarray | None,
    converged: Callable[[np.ndarray], bool],
    *,
    max_steps: int,
    watched: int = 0,
) -> March:
    """Step until `solver.t_bound`, or the first accepted step at which `converged(state)`.

    Args:
        solver: a fresh solver, at t = 0.
        times: increasing output times >= 0, served from the solver's dense output; None records
            every step. The state at which the integration ends is always recorded.
        converged: state -> stop here.
        max_steps: steps after which the integration counts as failed.
        watched: for the first so many entries of the state, sign changes are counted at every
            step, whatever the output times.

    Returns:
        The record; a failure of the solver is its status, and what came before it is kept.
    """
    out = March(sign_changes=np.zeros(watched, dtype=np.int64))
    _serve(out, solver, times)
    while not converged(solver.y):
        if solver.status == "finished":
            return out.end(FlowStatus.TIME_REACHED)
        before = solver.y[:watched]
        message = f"more than {max_steps} steps" if out.steps >= max_steps else solver.step()
        if message is not None or not np.isfinite(solver.y).all():
            return out.end(FlowStatus.FAILED, message or "the state is no longer finite")
        out.steps += 1
        out.sign_changes += np.signbit(before) != np.signbit(solver.y[:watched])
        _serve(out, solver, times)
    out.record(solver.t, solver.y)
    return out.end(FlowStatus.CONVERGED)


def _serve(out: March, solver: OdeSolver, times: np.ndarray | None) -> None:
    """Record the outputs that the last step made available."""
    if times is not None and solver.t > 0:
        first = np.searchsorted(times, out.t[-1], side="right") if out.t else 0
        due = times[first : np.searchsorted(times, solver.t)]
        if due.size:
            dense = solver.dense_output()
            for t in due:
                out.record(t, dense(t))
    if times is None or solver.status == "finished" or solver.t in times:
        out.record(solver.t, solver.y)

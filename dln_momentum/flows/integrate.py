"""One flow by SciPy's solvers: explicit at first, implicit once the flow is slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import DOP853, OdeSolver
from torch import Tensor

from dln_momentum.flows.kept_steps import KeptSteps
from dln_momentum.flows.newton import StructuredRadau
from dln_momentum.flows.options import SHARE, FlowOptions
from dln_momentum.flows.path import FlowPath, SolverReport
from dln_momentum.flows.step_sums import StepSums
from dln_momentum.flows.stepping import FlowStatus, IntegratorState
from dln_momentum.flows.system import FlowSystem
from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of

TINY = 1e-300
"""The least absolute tolerance."""


@dataclass(frozen=True)
class Integration:
    """How far to integrate and how, as `momentum_flow` was asked; not checked here.

    Attributes:
        time, times, tol, options: as for `momentum_flow`.
        switch: time at which "auto" changes from DOP853 to Radau. Both are one-step methods, so
            that the change costs no accuracy.
        corners: times at which the flow is not smooth, where a solver ends and another begins.
    """

    time: float
    times: Tensor | None
    tol: float | None
    options: FlowOptions
    switch: float
    corners: tuple[float, ...] = ()

    def run(
        self,
        system: FlowSystem,
        initial: np.ndarray,
        path_of: Callable[[np.ndarray, np.ndarray], FlowPath],
        sums: Callable[[FlowPath], StepSums],
        watched: int = 0,
        series: Callable[[np.ndarray, float], tuple[float, np.ndarray]] | None = None,
    ) -> FlowPath:
        """Integrate from t = 0.

        Args:
            system: the flow.
            initial: its state at t = 0.
            path_of: from times [T] and states [T, size] to a path.
            sums: of a path with every step, the sums over each of them.
            watched: of the first so many entries of the state, sign changes are counted.
            series: (state, latest time) -> (t, state): the solver starts there.
        """
        times = None if self.times is None else to_array(self.times)
        every = times is None or self.options.keep_steps
        kept = KeptSteps(
            len(initial), times, (lambda t, states: sums(path_of(t, states))) if every else None
        )
        integrator = IntegratorState(
            times=times,
            converged=lambda state, t: self.tol is not None and system.energy(state, t) <= self.tol,
            max_steps=self.options.max_steps,
            kept=kept,
            watched=watched,
            keep_steps=self.options.keep_steps,
        )
        w_0 = system.read(initial).w
        reports: list[SolverReport] = []
        t, state = 0.0, initial
        if series is not None:
            kept.append(t, state)
            t, state = series(state, self._first_output() / 2)
        # a trial step may overflow; the error estimate then rejects it
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while integrator.status is FlowStatus.TIME_REACHED and t < self.time:
                solver, before = self._solver(system, t, state, w_0), integrator.steps
                integrator.run(solver, self._follow_sizes(system, solver, w_0))
                reports.append(_report(solver, integrator.steps - before, integrator.message))
                t, state = solver.t, solver.y
        kept.append(t, state)
        path = path_of(kept.t, kept.states)
        changes = integrator.sign_changes.reshape(-1, path.w.shape[-1]).sum(0)
        return replace(
            path,
            sign_changes=torch.from_numpy(changes),
            status=integrator.status,
            solvers=tuple(reports),
            sums=kept.sums(),
        )

    def _solver(
        self,
        system: FlowSystem,
        t: float,
        state: np.ndarray,
        w_0: np.ndarray,
    ) -> DOP853 | StructuredRadau:
        method, time = self.options.method, self.time
        explicit_until = {"auto": min(self.switch, time), "explicit": time, "implicit": 0.0}[method]
        implicit = t >= explicit_until
        end = min([time if implicit else explicit_until, *(c for c in self.corners if c > t)])
        rtol, least = self.options.tolerances(implicit, float(np.abs(w_0).max()))
        atol: Any = np.full(len(state), least)
        if self.options.atol is None:
            rounding = system.rounding(w_0)
            np.maximum(atol[: len(rounding)], rounding, out=atol[: len(rounding)])
        if implicit:
            return StructuredRadau(
                system.rhs, t, state, end, linearise=system.linearise, rtol=rtol, atol=atol
            )
        return DOP853(system.rhs, t, state, end, rtol=rtol, atol=atol)

    def _follow_sizes(
        self, system: FlowSystem, solver: OdeSolver, w_0: np.ndarray
    ) -> Callable[[], None] | None:
        """What sets the absolute tolerance of the next step, where it follows the sizes of w."""
        if not self.options.follows_sizes(float(np.abs(w_0).max())):
            return None
        given: Any = solver
        largest, entries = given.atol.copy(), len(system.sizes(solver.y))

        def follow() -> None:
            of_size = SHARE * given.rtol * system.sizes(solver.y)
            # of an entry that has been 0 from the start too
            np.minimum(largest[:entries], of_size, out=given.atol[:entries])
            np.maximum(given.atol, TINY, out=given.atol)

        return follow

    def _first_output(self) -> float:
        """The first output time above 0, or the end."""
        later = [] if self.times is None else self.times[self.times > 0].tolist()
        return min([*later[:1], self.time])


def to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as a float64 array."""
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()


def path_of_states(
    problem: Problem, system: FlowSystem, lam: float, times: np.ndarray, states: np.ndarray
) -> FlowPath:
    """Read a path off states at some times; how the integration ended is not in them."""
    found = system.read(states)
    w, dw = (torch.from_numpy(value).movedim(1, 0).contiguous() for value in (found.w, found.dw))
    problem, square = problem.to("cpu"), found.gradient_square
    return FlowPath(
        lam=lam,
        t=torch.tensor(times),
        w=w,
        dw=dw,
        G=torch.from_numpy(found.residual_integral) @ problem.X / problem.n,
        G_delayed=torch.from_numpy(found.residual_delayed) @ problem.X / problem.n,
        dissipated=torch.tensor(found.dissipated),
        loss=problem.loss(theta_of(w)),
        sign_changes=torch.zeros(problem.d, dtype=torch.int64),
        status=FlowStatus.TIME_REACHED,
        solvers=(),
        gradient_square=None if square is None else torch.tensor(square),
    )


def _report(solver: DOP853 | StructuredRadau, steps: int, message: str) -> SolverReport:
    return SolverReport(
        method=type(solver).__name__,
        rtol=float(solver.rtol),
        atol=float(np.max(solver.atol)),
        steps=steps,
        evaluations=solver.nfev,
        factorisations=solver.nlu,
        message=message,
    )

"""One flow by SciPy's solvers: explicit at first, implicit once the flow is slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import DOP853
from torch import Tensor

from dln_momentum.flows.newton import Linearised, StructuredRadau
from dln_momentum.flows.options import FlowOptions
from dln_momentum.flows.path import FlowPath, SolverReport
from dln_momentum.flows.state import FlowSystem
from dln_momentum.flows.stepping import FlowStatus, IntegratorState
from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of


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
        linearise: Callable[[float, np.ndarray], Linearised],
        initial: np.ndarray,
        watched: int = 0,
        series: Callable[[np.ndarray, float], tuple[float, np.ndarray]] | None = None,
    ) -> tuple[IntegratorState, tuple[SolverReport, ...]]:
        """Integrate from t = 0; of the first `watched` entries, sign changes are counted.

        With `series`, (state, latest time) -> (t, state), the solver starts there.
        """
        integrator = IntegratorState(
            times=None if self.times is None else to_array(self.times),
            converged=lambda state, t: self.tol is not None and system.energy(state, t) <= self.tol,
            max_steps=self.options.max_steps,
            watched=watched,
            keep_steps=self.options.keep_steps,
        )
        scale = float(np.abs(system.read(initial).w).max())
        reports: list[SolverReport] = []
        t, state = 0.0, initial
        if series is not None:
            integrator.record(t, state)
            t, state = series(state, self._first_output() / 2)
        # a trial step may overflow; the error estimate then rejects it
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while integrator.status is FlowStatus.TIME_REACHED and t < self.time:
                solver = self._solver(system, linearise, t, state, scale)
                before = integrator.steps
                integrator.run(solver)
                reports.append(_report(solver, integrator.steps - before, integrator.message))
                t, state = solver.t, solver.y
        integrator.record(t, state)
        return integrator, tuple(reports)

    def _solver(
        self,
        system: FlowSystem,
        linearise: Callable[[float, np.ndarray], Linearised],
        t: float,
        state: np.ndarray,
        scale: float,
    ) -> DOP853 | StructuredRadau:
        method, time = self.options.method, self.time
        explicit_until = {"auto": min(self.switch, time), "explicit": time, "implicit": 0.0}[method]
        implicit = t >= explicit_until
        end = min([time if implicit else explicit_until, *(c for c in self.corners if c > t)])
        rtol, atol = self.options.tolerances(implicit, scale)
        if implicit:
            return StructuredRadau(
                system.rhs, t, state, end, linearise=linearise, rtol=rtol, atol=atol
            )
        return DOP853(system.rhs, t, state, end, rtol=rtol, atol=atol)

    def _first_output(self) -> float:
        """The first output time above 0, or the end."""
        later = [] if self.times is None else self.times[self.times > 0].tolist()
        return min([*later[:1], self.time])


def to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as a float64 array."""
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()


def to_path(
    problem: Problem,
    system: FlowSystem,
    lam: float,
    integrator: IntegratorState,
    solvers: tuple[SolverReport, ...],
) -> FlowPath:
    """Read the path off the recorded states."""
    states = system.read(np.stack(integrator.states))
    w, dw = (torch.tensor(value).movedim(1, 0).contiguous() for value in (states.w, states.dw))
    problem, square = problem.to("cpu"), states.gradient_square
    sign_changes = integrator.sign_changes.reshape(-1, problem.d).sum(0)
    return FlowPath(
        lam=lam,
        t=torch.tensor(integrator.t, dtype=torch.float64),
        w=w,
        dw=dw,
        G=torch.tensor(states.residual_integral) @ problem.X / problem.n,
        G_delayed=torch.tensor(states.residual_delayed) @ problem.X / problem.n,
        dissipated=torch.tensor(states.dissipated),
        loss=problem.loss(theta_of(w)),
        sign_changes=torch.from_numpy(sign_changes),
        status=integrator.status,
        solvers=solvers,
        gradient_square=None if square is None else torch.tensor(square),
    )


def _report(solver: DOP853 | StructuredRadau, steps: int, message: str) -> SolverReport:
    return SolverReport(
        method=type(solver).__name__,
        rtol=float(solver.rtol),
        atol=float(solver.atol),
        steps=steps,
        evaluations=solver.nfev,
        factorisations=solver.nlu,
        message=message,
    )

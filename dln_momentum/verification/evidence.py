"""The runs that all statements share, each computed when it is first asked for."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
from dln_momentum.flows import (
    FlowOptions,
    FlowPath,
    SummedIntegrals,
    effective_flow,
    gradient_flow,
    momentum_flow,
    summed_path_integrals,
)
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.verification.case import Case
from dln_momentum.verification.written_update import first_zero

STEP_WORK = 2.4e9
"""n d times the steps of the discrete run: a few seconds of one core."""
MOST_STEPS = 4_000_000
EXPLICIT_STEPS = 1000
"""Explicit steps, limited by the fastest rate: some thousand times its inverse, a fraction of a
second. All that is left to happen by then is slow."""
BLOCK = 1000
RETRACED = 2000
"""Steps of the written update in search of a w_+- that is exactly 0: a fraction of a second."""
SMALL_MATRIX = 256


class Evidence:
    """What was computed of a case: its discrete run, its momentum flow and its gradient flow.

    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> case = Case(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.05, beta=0.5))
    >>> evidence = Evidence(case)
    >>> round(evidence.lam, 3), evidence.momentum_path.converged
    (0.2, True)
    >>> [snapshot.step for snapshot in evidence.snapshots]
    [0, 1, 10, 90]
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.problem: Problem = case.problem

    @cached_property
    def lam(self) -> float:
        """lambda of the continuous flow."""
        if self.case.lam is not None:
            return self.case.lam
        assert self.case.momentum is not None
        return self.case.momentum.lam

    @cached_property
    def momentum(self) -> Momentum:
        """gamma and beta of the discrete run; by default a step that resolves the flow."""
        if self.case.momentum is not None:
            return self.case.momentum
        eps = min(self.lam / 2, 0.3 * math.sqrt(self.lam / self.curvature))
        return Momentum.from_pair(lam=self.lam, eps=eps)

    @cached_property
    def momentum_path(self) -> FlowPath:
        """MGF(lambda) from rest, every step of the solver, until it has converged."""
        return self.momentum_flow(self.lam)

    def momentum_flow(self, lam: float) -> FlowPath:
        """MGF of some lambda from the case's start and speed."""
        case = self.case
        (w_plus, w_minus), (dw_plus, dw_minus) = case.w, case.dw
        with few_threads(case.problem):
            return momentum_flow(
                case.problem, w_plus, w_minus, lam, math.inf, dw_plus_0=dw_plus,
                dw_minus_0=dw_minus, tol=case.tol, options=case.options,
            )  # fmt: skip

    @cached_property
    def gradient_path(self) -> FlowPath:
        """Gradient flow from the same start, until it has converged, with w_+- integrated.

        The mirror form, which is faster, has in it what is to be checked.
        """
        return self._gradient_flow(self.case.options)

    @cached_property
    def effective_path(self) -> FlowPath:
        """Gradient flow from the effective initialisation of the momentum flow."""
        balancedness = limit_bias(self.momentum_path).balancedness
        tol, options = self.case.tol, self.case.options
        with few_threads(self.problem):
            return effective_flow(
                self.problem, balancedness, form="direct", tol=tol, options=options
            )

    @cached_property
    def explicit_gradient_path(self) -> FlowPath:
        """The first steps of the same flow by the explicit method, far more exact."""
        return self._gradient_flow(FlowOptions(method="explicit", max_steps=EXPLICIT_STEPS))

    def _gradient_flow(self, options: FlowOptions) -> FlowPath:
        problem, (w_plus, w_minus) = self.problem, self.case.w
        with few_threads(problem):
            return gradient_flow(
                problem, w_plus, w_minus, math.inf, form="direct", tol=self.case.tol,
                options=options,
            )  # fmt: skip

    @cached_property
    def summed_integrals(self) -> SummedIntegrals:
        """I_+- along the momentum flow, by their definition."""
        return summed_path_integrals(self.problem, self.momentum_path)

    @cached_property
    def curvature(self) -> float:
        """A bound on the Hessian of F along the momentum flow: its fastest rate is that over 1.

        The Hessian in (u, v) is that of the loss, scaled by w_+-^2, and grad L off the diagonal.
        """
        path, problem = self.momentum_path, self.problem
        data = float(torch.linalg.matrix_norm(problem.X, 2) ** 2) / problem.n
        layers = (path.w_plus.square() + path.w_minus.square()).amax() / 2
        return data * float(layers) + float(problem.gradient(path.theta).abs().max())

    @cached_property
    def snapshots(self) -> list[Snapshot]:
        """The start and the discrete run after 1, 10, 100, ... steps and at its end.

        S_+- is summed by its definition at every step. A run that diverges ends at the last of
        these steps before it did. Only w and the loss count as divergence: any other number that
        is not finite is an error of ours, and stays for the statements to find.
        """
        # an oscillating run passes below the tolerance long before its energy is there
        engine = self.engine(tol=1e-4 * self.case.tol)
        found = [engine.snapshot()]
        for target in self._targets():
            while len(engine.running) and engine.step < target:
                engine.advance(min(BLOCK, target - engine.step))
            snapshot = engine.snapshot()
            if _diverged(snapshot):
                break
            found.append(snapshot)
            if not len(engine.running):
                break
        return found

    @cached_property
    def zero_step(self) -> int | None:
        """The first step at which an entry of w_+- is exactly 0, of those that are retraced."""
        return first_zero(self.case, self.momentum, min(RETRACED, self.snapshots[-1].step))

    @property
    def run_diverged(self) -> bool:
        """Whether the discrete run went beyond all bounds after the last of its snapshots."""
        last = self.snapshots[-1]
        return int(last.status[0]) == Status.RUNNING and last.step < self._targets()[-1]

    def engine(
        self, *, backend: str = "auto", path_sums: str = "direct", tol: float = -math.inf
    ) -> Engine:
        """The discrete run at its start, with S_+- summed from the iterates."""
        case, momentum = self.case, self.momentum
        one = torch.ones(1, dtype=torch.float64)
        before = None if case.at_rest else (case.w - momentum.eps * case.dw)[:, None]
        return Engine(
            case.problem,
            momentum.gamma * one,
            momentum.beta * one,
            case.w[:1],
            case.w[1:],
            previous=None if before is None else (before[0], before[1]),
            batches=case.batches,
            label_noise=case.label_noise,
            options=EngineOptions(path_sums=path_sums, tol=tol, backend=backend),
        )

    def _targets(self) -> list[int]:
        most = min(MOST_STEPS, int(STEP_WORK / (self.problem.n * self.problem.d)))
        most = max(1, self.case.max_steps or most)
        return [10**k for k in range(round(math.log10(most)) + 1) if 10**k < most] + [most]


def few_threads(problem: Problem) -> AbstractContextManager[Any]:
    """One BLAS thread where the matrices of a flow are small: a second one makes it slower."""
    return threadpool_limits(1) if problem.n < SMALL_MATRIX else nullcontext()


def _diverged(snapshot: Snapshot) -> bool:
    finite = bool(snapshot.w.isfinite().all() & snapshot.loss.isfinite().all())
    return int(snapshot.status[0]) == Status.DIVERGED or not finite

"""The runs that all statements share, each computed when it is first asked for."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
from dln_momentum.flow import (
    FlowOptions,
    FlowPath,
    SummedIntegrals,
    gradient_flow,
    momentum_flow,
    summed_path_integrals,
)
from dln_momentum.momentum import Momentum
from dln_momentum.problem import Problem
from dln_momentum.verification.case import Case

STEP_WORK = 2.4e9
"""n d times the steps of the discrete run: a few seconds of one core."""
MOST_STEPS = 4_000_000
DIRECT_STEPS = 1000
"""Explicit steps, limited by the fastest rate: some thousand times its inverse, a fraction of a
second. All that is left to happen by then is slow."""
BLOCK = 1000
SMALL_MATRIX = 256


class Evidence:
    """What was computed of a case: its discrete run, its momentum flow and its gradient flow.

    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> case = Case(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.05, beta=0.5))
    >>> evidence = Evidence(case)
    >>> round(evidence.lam, 3), evidence.momentum_path.converged
    (0.2, True)
    >>> [snapshot.step for snapshot in evidence.snapshots]
    [1, 10, 100]
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
        """MGF of some lambda from the case's start."""
        case = self.case
        with few_threads(case.problem):
            return momentum_flow(
                case.problem, case.w_plus, case.w_minus, lam, math.inf,
                tol=case.tol, options=case.options,
            )  # fmt: skip

    @cached_property
    def gradient_path(self) -> FlowPath:
        """Gradient flow from the same start, until it has converged."""
        return self.gradient_flow(self.case.w_plus, self.case.w_minus)

    def gradient_flow(self, w_plus: Tensor, w_minus: Tensor) -> FlowPath:
        """Gradient flow by its closed form w_+- = w_{+-,0} exp(-+G), until it has converged."""
        tol, options = self.case.tol, self.case.options
        with few_threads(self.problem):
            return gradient_flow(self.problem, w_plus, w_minus, math.inf, tol=tol, options=options)

    def direct_gradient_flow(self, w_plus: Tensor, w_minus: Tensor) -> FlowPath:
        """The first steps of gradient flow in w_+- themselves, without the closed form built in."""
        options = FlowOptions(max_steps=DIRECT_STEPS)
        return gradient_flow(
            self.problem, w_plus, w_minus, math.inf, form="direct", tol=self.case.tol,
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
        """The discrete run after 1, 10, 100, ... steps and at its end, while it is finite.

        S_+- is summed by its definition at every step. A run that diverges ends at the last of
        these steps before it did; if there is none, its start is all there is.
        """
        engine = self._engine()
        found = [engine.snapshot()]
        for target in self._targets():
            while len(engine.running) and engine.step < target:
                engine.advance(min(BLOCK, target - engine.step))
            snapshot = engine.snapshot()
            if not _finite(snapshot):
                break
            found.append(snapshot)
            if not len(engine.running):
                break
        return found[1:] or found

    def _engine(self) -> Engine:
        case, one = self.case, torch.ones(1, dtype=torch.float64)
        return Engine(
            case.problem,
            self.momentum.gamma * one,
            self.momentum.beta * one,
            case.w_plus[None],
            case.w_minus[None],
            batches=case.batches,
            label_noise=case.label_noise,
            # an oscillating run passes below the tolerance long before its energy is there
            options=EngineOptions(path_sums="direct", tol=1e-4 * case.tol),
        )

    def _targets(self) -> list[int]:
        most = min(MOST_STEPS, int(STEP_WORK / (self.problem.n * self.problem.d)))
        most = max(1, self.case.max_steps or most)
        return [10**k for k in range(round(math.log10(most)) + 1) if 10**k < most] + [most]


def few_threads(problem: Problem) -> AbstractContextManager[Any]:
    """One BLAS thread where the matrices of a flow are small: a second one makes it slower."""
    return threadpool_limits(1) if problem.n < SMALL_MATRIX else nullcontext()


def _finite(snapshot: Snapshot) -> bool:
    sums = snapshot.path_sums_from_iterates
    assert sums is not None
    kept = (snapshot.w, snapshot.boundary, sums)
    diverged = int(snapshot.status[0]) == Status.DIVERGED
    return not diverged and all(bool(tensor.isfinite().all()) for tensor in kept)

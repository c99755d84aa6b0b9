"""The runs and flows that the statements share, each computed on first use."""

from __future__ import annotations

import itertools
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
from dln_momentum.errors import InputError
from dln_momentum.flows import (
    Annealed,
    ContourIntegrals,
    FlowOptions,
    FlowPath,
    SummedIntegrals,
    contour_integrals,
    effective_flow,
    gradient_flow,
    momentum_flow,
    summed_path_integrals,
)
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.reference import reference_iterates
from dln_momentum.theory.small_lambda import descent_modulus
from dln_momentum.verification.setting import Setting
from dln_momentum.verification.written_update import first_zero
from dln_momentum.wide_rows import spectral_norm

STEP_WORK = 2.4e9
"""n d times the steps of the discrete run: a few seconds of one core."""
MOST_STEPS = 4_000_000
EXPLICIT_STEPS = 1000
"""Steps of the explicit method: some thousand times the inverse of the fastest rate, computed in a
fraction of a second. The remaining motion is slow."""
BLOCK = 1000
ITERATES = 3000
"""Steps of the plain program whose every iterate is kept: a tenth of a second."""
ITERATE_ENTRIES = 2**23
"""Entries of w_+- in all of them, 64 MiB: fewer steps from d = 1400 on."""
CHECKED = 50
CHANGING = 15.0
"""Length of the flows whose coefficients change, in units of the fastest oscillation over 2 pi."""
LOSSES = 300
"""Losses along the whole run that the contraction at its end is read off."""
RETRACED = 2000
"""Steps of the written update that are searched for a w_+- that is exactly 0."""
SMALL_MATRIX = 256


class Measurements:
    """The discrete run, the momentum flow and the gradient flows of a setting.

    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> setting = Setting(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.05, beta=0.5))
    >>> measurements = Measurements(setting)
    >>> round(measurements.lam, 3), measurements.momentum_path.converged
    (0.2, True)
    >>> [snapshot.step for snapshot in measurements.snapshots]
    [0, 1, 10, 90]
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.problem: Problem = setting.problem

    @cached_property
    def lam(self) -> float:
        """lambda of the continuous flow."""
        if self.setting.lam is not None:
            return self.setting.lam
        assert self.setting.momentum is not None
        return self.setting.momentum.lam

    @cached_property
    def momentum(self) -> Momentum:
        """gamma and beta of the discrete run; by default a step that resolves the flow."""
        if self.setting.momentum is not None:
            return self.setting.momentum
        eps = min(self.lam / 2, 0.3 * math.sqrt(self.lam / self.curvature))
        return Momentum.from_pair(lam=self.lam, eps=eps)

    @cached_property
    def momentum_path(self) -> FlowPath:
        """MGF(lambda) from rest, every step of the solver, until it has converged."""
        return self.momentum_flow(self.lam)

    def momentum_flow(self, lam: float) -> FlowPath:
        """MGF of some lambda from the setting's start and speed."""
        setting = self.setting
        (w_plus, w_minus), (dw_plus, dw_minus) = setting.w, setting.dw
        with few_threads(setting.problem):
            return momentum_flow(
                setting.problem, w_plus, w_minus, lam, math.inf, dw_plus_0=dw_plus,
                dw_minus_0=dw_minus, tol=setting.tol, options=setting.options,
            )  # fmt: skip

    @cached_property
    def gradient_path(self) -> FlowPath:
        """Gradient flow from the same start, until it has converged, in the direct form.

        In the mirror form the statements would hold by construction.
        """
        return self._gradient_flow(self.setting.options)

    @cached_property
    def effective_path(self) -> FlowPath:
        """Gradient flow from the effective initialisation of the momentum flow."""
        balancedness = limit_bias(self.momentum_path).balancedness
        given = self.setting
        with few_threads(self.problem):
            return effective_flow(
                self.problem, balancedness, form="direct", tol=given.tol, options=given.options
            )

    @cached_property
    def explicit_gradient_path(self) -> FlowPath:
        """The first steps of the same flow by the explicit method, which is more accurate."""
        return self._gradient_flow(FlowOptions(method="explicit", max_steps=EXPLICIT_STEPS))

    def _gradient_flow(self, options: FlowOptions) -> FlowPath:
        problem, (w_plus, w_minus) = self.problem, self.setting.w
        with few_threads(problem):
            return gradient_flow(
                problem, w_plus, w_minus, math.inf, form="direct", tol=self.setting.tol,
                options=options,
            )  # fmt: skip

    @cached_property
    def summed_integrals(self) -> SummedIntegrals:
        """I_+- along the momentum flow, by their definition."""
        return summed_path_integrals(self.problem, self.momentum_path)

    @cached_property
    def contour(self) -> ContourIntegrals | str:
        """I_+- of the momentum flow along contours; why not, where that is not applied."""
        try:
            return contour_integrals(self.problem, self.momentum_path)
        except InputError as error:
            return str(error)

    @cached_property
    def changing_paths(self) -> dict[str, FlowPath]:
        """Flows from the same start at rest whose friction is 3/t, and whose lambda is annealed.

        They have the inertia of the momentum flow, the first in its own time: with
        t = sqrt(lambda) s Nesterov's ODE is lambda w'' + (3 lambda/t) w' + grad F = 0.
        """
        lam, (w_plus, w_minus) = self.lam, self.setting.w
        time = CHANGING * math.sqrt(lam / self.curvature) + 10 * lam
        options = replace(self.setting.options, method="explicit")
        given: dict[str, tuple[Any, Any]] = {
            "b/t flow": (lam, f"{3 * lam:.17g}/t"),
            "annealed flow": (Annealed(lam, lam / 4, time / 2), 1.0),
        }
        with few_threads(self.problem):
            return {
                label: momentum_flow(
                    self.problem, w_plus, w_minus, lam, time, friction=friction, options=options
                )
                for label, (lam, friction) in given.items()
            }

    @cached_property
    def curvature(self) -> float:
        """A bound on the Hessian of F along the momentum flow: its fastest rate is that over 1.

        The Hessian in (u, v) is that of the loss, scaled by w_+-^2, and grad L off the diagonal.
        """
        path, problem = self.momentum_path, self.problem
        data = float(spectral_norm(problem.X) ** 2) / problem.n
        layers = path.w.square().sum(0).amax() / 2
        return data * float(layers) + float(problem.gradient(path.theta).abs().max())

    @cached_property
    def snapshots(self) -> list[Snapshot]:
        """The start and the discrete run after 1, 10, 100, ... steps and at its end.

        S_+- is summed by its definition at every step. A run that diverges ends at the last of
        these steps before it did. Only w and the loss count as divergence: any other number that
        is not finite is a fault of the package, which the statements then find.
        """
        # the loss of an oscillating run is below the tolerance long before its energy is
        engine = self.engine(tol=1e-4 * self.setting.tol)
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
    def last_losses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Steps, losses and the last w_+- [2, d] of the discrete run, followed to rounding.

        The run is `snapshots` again, and goes on until its loss is 1e-28 of the first, or for as
        many steps as that took.
        """
        taken = self.snapshots[-1].step
        engine, block = self.engine(), max(1, taken // LOSSES)
        steps, losses = [0], [self.setting.loss]
        while losses[-1] > 1e-28 * self.setting.loss and engine.step < 2 * taken:
            engine.advance(block)
            steps.append(engine.step)
            losses.append(float(engine.snapshot().loss[0]))
        found = torch.tensor(steps), torch.tensor(losses, dtype=torch.float64)
        return *found, engine.snapshot().w[:, 0]

    @cached_property
    def first_iterates(self) -> Tensor:
        """w_+- of every step, by the plain program, up to `ITERATES` or convergence, [K, 2, d]."""
        (w_plus, w_minus), momentum = self.setting.w, self.momentum
        u, v = (w_plus + w_minus) / 2, (w_plus - w_minus) / 2
        found, target = [(u, v)], 1e-4 * self.setting.tol
        later = reference_iterates(self.problem, u, v, momentum.gamma, momentum.beta)
        kept = min(ITERATES, max(1, ITERATE_ENTRIES // (2 * self.problem.d)))
        most = kept if self.setting.max_steps is None else self.setting.max_steps
        for k, pair in enumerate(itertools.islice(later, min(kept, most))):
            found.append(pair)
            if k % CHECKED == 0:
                loss = float(self.problem.loss(pair[0] * pair[1]))
                if not target < loss < math.inf:
                    break
        u, v = (torch.stack(layers) for layers in zip(*found, strict=True))
        return torch.stack([u + v, u - v], 1)

    @cached_property
    def steps_near_zeros(self) -> Tensor:
        """Steps that `first_iterates` count for by where they end, up to each, the most of any.

        A step of the length |dw| that ends at w has a rounding of |dw|/|w| ulps of ln|w|. Of runs
        whose iterates the plain program does not have, a 0.
        """
        if self.setting.stochastic or not self.setting.at_rest:
            return torch.zeros(1, dtype=torch.float64)
        w = self.first_iterates
        so_far, found = torch.zeros_like(w[0]), [w.new_zeros(())]
        for before, after in itertools.pairwise(w):
            counts = ((after - before) / after).abs()
            # from a w that is exactly 0 on there is no S_+-, and a run that diverges ends
            so_far += torch.where(counts.isfinite(), counts, 0.0)
            found.append(so_far.max())
        return torch.stack(found)

    @property
    def iterates_converged(self) -> bool:
        """Whether the loss at the last of `first_iterates` is at most the tolerance."""
        w = self.first_iterates[-1]
        return float(self.problem.loss((w[0].square() - w[1].square()) / 4)) <= self.setting.tol

    @cached_property
    def descent_modulus(self) -> float:
        """The largest M that a step among `first_iterates` needs."""
        w = self.first_iterates.movedim(1, 0)
        # blocks of steps: on the way a step takes some ten times the memory of its iterates
        block = max(1, ITERATE_ENTRIES // (16 * w[:, 0].numel()))
        return max(
            float(descent_modulus(self.problem, part[:, :-1], part[:, 1:]).max())
            for first in range(0, w.shape[1] - 1, block)
            for part in [w[:, first : first + block + 1]]
        )

    @cached_property
    def zero_step(self) -> int | None:
        """The first step at which an entry of w_+- is exactly 0, of the first `RETRACED`."""
        return first_zero(self.setting, self.momentum, min(RETRACED, self.snapshots[-1].step))

    @property
    def run_diverged(self) -> bool:
        """Whether the discrete run diverged after the last of its snapshots."""
        last = self.snapshots[-1]
        return int(last.status[0]) == Status.RUNNING and last.step < self._targets()[-1]

    def engine(
        self, *, backend: str = "auto", path_sums: str = "direct", tol: float = -math.inf
    ) -> Engine:
        """The discrete run at its start, with S_+- summed from the iterates."""
        setting, momentum = self.setting, self.momentum
        if not setting.method.is_plain or self.problem.is_classification:
            path_sums = "telescoped"  # the one way that the general kernels have
        one = torch.ones(1, dtype=torch.float64)
        before = None if setting.at_rest else (setting.w - momentum.eps * setting.dw)[:, None]
        return Engine(
            setting.problem,
            momentum.gamma * one,
            momentum.beta * one,
            setting.w[:1],
            setting.w[1:],
            previous=None if before is None else (before[0], before[1]),
            batches=setting.batches,
            label_noise=setting.label_noise,
            options=EngineOptions(path_sums=path_sums, tol=tol, backend=backend),
            method=setting.method,
        )

    def _targets(self) -> list[int]:
        most = min(MOST_STEPS, int(STEP_WORK / (self.problem.n * self.problem.d)))
        most = max(1, self.setting.max_steps or most)
        return [10**k for k in range(round(math.log10(most)) + 1) if 10**k < most] + [most]


def few_threads(problem: Problem) -> AbstractContextManager[Any]:
    """One BLAS thread where the matrices of a flow are small: a second one makes it slower.

    Without threadpoolctl nothing is changed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return nullcontext()
    return threadpool_limits(1) if problem.n < SMALL_MATRIX else nullcontext()


def _diverged(snapshot: Snapshot) -> bool:
    finite = bool(snapshot.w.isfinite().all() & snapshot.loss.isfinite().all())
    return int(snapshot.status[0]) == Status.DIVERGED or not finite

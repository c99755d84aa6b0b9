"""Adaptive integration of many flows through their output times, each with its own step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.engine import EngineOptions
from dln_momentum.engine.problems import data_of_runs
from dln_momentum.flows.batched.leapfrog import PhasePoint
from dln_momentum.flows.batched.richardson import LEVELS, ORDER, MacroSteps, take_macro_steps
from dln_momentum.flows.batched.stability import stable_step
from dln_momentum.flows.stepping import FlowStatus
from dln_momentum.problem import Problem

FIRST_MACRO_STEPS, MACRO_STEPS = 16, 64
"""Macro-steps taken at a time: few at first, until the step size has settled, then twice as many
each time. More at a time have less overhead, but a rejection costs more."""

FEWEST_MACRO_STEPS = 4

DECAY = 8.0
"""Leapfrog has a second root, near -1 + 4 lambda/eps for a small lambda, without counterpart in the
flow. Its amplitude after a restart has no expansion in eps and decays like exp(-4 lambda t/eps^2);
the macro-steps between two restarts last ``DECAY`` eps^2/lambda, until it has decayed to e^-32."""

FIRST_STEP = 0.3
SHRINK, GROW, SAFETY = 0.3, 2.0, 0.9


@dataclass(frozen=True)
class IntegratorOptions:
    """Output times, tolerances and limits: see `momentum_flows`."""

    times: Tensor
    """increasing output times, [T, R]"""
    rtol: float
    tol: float | None
    max_steps: int
    engine: EngineOptions


@dataclass
class BatchedIntegrator:
    """Adaptive integration state of R flows; `run` integrates them to their ends.

    The outputs have a row for t = 0 and one for each output time.
    """

    problem: Problem
    lam: Tensor
    options: IntegratorOptions
    point: PhasePoint

    def __post_init__(self) -> None:
        self.t = torch.zeros_like(self.lam)
        self.error = torch.zeros_like(self.point.values)
        counts = torch.zeros_like(self.lam, dtype=torch.int64)
        self.steps, self.sign_changes, self.served = counts, counts.clone(), counts.clone()
        self.macro_steps = counts + FIRST_MACRO_STEPS
        self.running, self.converged = counts == 0, counts > 0
        size = self.problem.gradient(self.point.theta).abs().amax(-1).clamp_min(1e-300)
        self.step = LEVELS[0] * FIRST_STEP * torch.minimum((self.lam / size).sqrt(), 1 / size)
        rows = len(self.options.times) + 1
        self.out_t, self.out_error = (self.t.repeat(rows, 1) for _ in range(2))
        self.out_values = self.point.values.repeat(rows, 1, 1, 1, 1)
        self.out_G = self.point.G.repeat(rows, 1, 1)

    def run(self) -> None:
        """Take every run to its last output time, to convergence, or to a failure."""
        self._finish(self._active())
        while len(runs := self._active()):
            duration, counts, whole = self._plan(runs)
            for count in counts.unique().tolist():
                group = counts == count
                self._advance(runs[group], duration[group], count, whole[group])
            self._finish(runs)
        # a run that ended early keeps its last point at all later times
        for row in range(len(self.out_t)):
            self._record(row, (self.served < row).nonzero().squeeze(-1))

    @property
    def statuses(self) -> tuple[FlowStatus, ...]:
        """How each run ended."""
        arrived = self.served == len(self.options.times)
        return tuple(
            FlowStatus.CONVERGED if c else FlowStatus.TIME_REACHED if a else FlowStatus.FAILED
            for c, a in zip(self.converged.tolist(), arrived.tolist(), strict=True)
        )

    def _active(self) -> Tensor:
        return self.running.nonzero().squeeze(-1)

    def _plan(self, runs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Duration and number of the next macro-steps, and whether no output time shortens them."""
        lam, problem = self.lam[runs], data_of_runs(self.problem, runs)
        stable = LEVELS[0] * stable_step(problem, self.point.w[:, runs], lam)
        step = self.step[runs] = torch.minimum(self.step[runs], stable)
        decay = DECAY / (LEVELS[0] ** 2 * lam)
        count = _rounded(torch.maximum(self.macro_steps[runs].to(step), decay * step))
        left = self._target(runs) - self.t[runs]
        whole = count * step < left
        duration = torch.where(whole, count * step, left)
        needed = torch.maximum(duration / step, (decay * duration).sqrt())
        needed = _rounded(needed.clamp_min(FEWEST_MACRO_STEPS))
        return duration, torch.where(whole, count, needed).long(), whole

    def _target(self, runs: Tensor) -> Tensor:
        return self.options.times[self.served[runs], runs]

    def _advance(self, runs: Tensor, duration: Tensor, count: int, whole: Tensor) -> None:
        """Try macro-steps; accept them where their error is small, and choose the next step."""
        work = count * (LEVELS[0] + sum(LEVELS))
        possible = self.steps[runs] + work <= self.options.max_steps
        possible &= self.t[runs] + duration > self.t[runs]
        self.running[runs[~possible]] = False
        runs, duration, whole = runs[possible], duration[possible], whole[possible]
        if len(runs) == 0:
            return
        start, error = self.point.select(runs), self.error[:, :, runs]
        found = take_macro_steps(
            self.problem, runs, self.lam[runs], start, error, duration, count, self.options.engine
        )
        self.steps[runs] += work
        ratio = _relative(found.local_error[0], found.end.w) / self.options.rtol
        ratio = torch.where(ratio.isfinite(), ratio, torch.inf)
        factor = SAFETY * ratio.clamp_min(1e-30) ** (-1 / (ORDER - 1))
        step = duration / count * factor.clamp(SHRINK, GROW)
        accepted = ratio <= 1
        # macro-steps shortened by an output time are no reason to reduce the step
        shortened = accepted & ~whole
        self.step[runs] = torch.where(shortened, torch.maximum(self.step[runs], step), step)
        t = torch.where(whole, self.t[runs] + duration, self._target(runs))
        self._accept(runs, accepted, found, t)

    def _accept(self, runs: Tensor, accepted: Tensor, found: MacroSteps, t: Tensor) -> None:
        runs, end = runs[accepted], found.end.select(accepted)
        self.t[runs] = t[accepted]
        self.point.values[:, :, runs], self.point.G[runs] = end
        self.error[:, :, runs] = found.error[:, :, accepted]
        self.sign_changes[runs] += found.sign_changes[accepted]
        self.macro_steps[runs] = (2 * self.macro_steps[runs]).clamp(max=MACRO_STEPS)

    def _finish(self, runs: Tensor) -> None:
        """Record the outputs at this time; end the runs that have converged or arrived."""
        due = runs[(self.t[runs] == self._target(runs))]
        self.served[due] += 1
        for row in self.served[due].unique().tolist():
            self._record(row, due[self.served[due] == row])
        if self.options.tol is not None:
            self.converged[runs] = self._energy(runs) <= self.options.tol
        self.running &= ~self.converged & (self.served < len(self.options.times))

    def _energy(self, runs: Tensor) -> Tensor:
        point, lam = self.point.select(runs), self.lam[runs]
        speed = (point.values[1] - point.values[0]).square().sum((0, -1)) / lam.square()
        return data_of_runs(self.problem, runs).loss(point.theta) + lam / 4 * speed

    def _record(self, row: int, runs: Tensor) -> None:
        self.out_t[row, runs] = self.t[runs]
        self.out_values[row][:, :, runs] = self.point.values[:, :, runs]
        self.out_G[row, runs] = self.point.G[runs]
        self.out_error[row, runs] = _relative(self.error[0][:, runs], self.point.w[:, runs])


def _rounded(count: Tensor) -> Tensor:
    """The next power of two: runs with the same number of macro-steps advance together."""
    return torch.exp2(torch.ceil(torch.log2(count))).clamp(max=2**40)


def _relative(error: Tensor, w: Tensor) -> Tensor:
    """The largest entry of the error over that of w, [R], from [2, R, d]."""
    return error.abs().amax((0, 2)) / w.abs().amax((0, 2))

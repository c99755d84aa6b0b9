"""March many flows through their output times, each with a step of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.engine import EngineOptions
from dln_momentum.flows.batched.leapfrog import Phase, of_runs
from dln_momentum.flows.batched.richardson import LEVELS, ORDER, Segment, segment
from dln_momentum.flows.batched.stability import stable_step
from dln_momentum.flows.stepping import FlowStatus
from dln_momentum.problem import Problem

FIRST_MACRO_STEPS, MACRO_STEPS = 16, 64
"""Macro steps to a segment: few at first, until the step has settled, then twice as many each time.
Longer segments have less overhead, but more is lost where one is refused."""

FEWEST_MACRO_STEPS = 4

DECAY = 8.0
"""Leapfrog has a second root, near -1 + 4 lambda/eps for a small lambda, which the flow has not.
What a restart puts into it has no expansion in eps; it decays like exp(-4 lambda t/eps^2), and a
segment lasts for ``DECAY`` eps^2/lambda, until e^-32 of it is left."""

FIRST_STEP = 0.3
SHRINK, GROW, SAFETY = 0.3, 2.0, 0.9


@dataclass(frozen=True)
class Aim:
    """What the flows are wanted for: see `momentum_flows`."""

    times: Tensor
    """increasing output times, [T, R]"""
    rtol: float
    tol: float | None
    max_steps: int
    options: EngineOptions


@dataclass
class March:
    """R flows on their way. `run` takes them to their ends."""

    problem: Problem
    lam: Tensor
    aim: Aim
    phase: Phase

    def __post_init__(self) -> None:
        self.t = torch.zeros_like(self.lam)
        self.error = torch.zeros_like(self.phase.values)
        counts = torch.zeros_like(self.lam, dtype=torch.int64)
        self.steps, self.sign_changes, self.served = counts, counts.clone(), counts.clone()
        self.macro_steps = counts + FIRST_MACRO_STEPS
        self.running, self.converged = counts == 0, counts > 0
        size = self.problem.gradient(self.phase.theta).abs().amax(-1).clamp_min(1e-300)
        self.step = LEVELS[0] * FIRST_STEP * torch.minimum((self.lam / size).sqrt(), 1 / size)
        rows = len(self.aim.times) + 1
        self.out_t, self.out_error = (self.t.repeat(rows, 1) for _ in range(2))
        self.out_values = self.phase.values.repeat(rows, 1, 1, 1, 1)
        self.out_G = self.phase.G.repeat(rows, 1, 1)

    def run(self) -> None:
        """Take every run to its last output time, to convergence, or to a failure."""
        self._judge(self._active())
        while len(runs := self._active()):
            span, macro_steps, whole = self._plan(runs)
            for count in macro_steps.unique().tolist():
                group = macro_steps == count
                self._advance(runs[group], span[group], count, whole[group])
            self._judge(runs)
        # a run that ended early is where it ended at all later times
        for row in range(len(self.out_t)):
            self._record(row, (self.served < row).nonzero().squeeze(-1))

    @property
    def statuses(self) -> tuple[FlowStatus, ...]:
        """How each run ended."""
        arrived = self.served == len(self.aim.times)
        return tuple(
            FlowStatus.CONVERGED if c else FlowStatus.TIME_REACHED if a else FlowStatus.FAILED
            for c, a in zip(self.converged.tolist(), arrived.tolist(), strict=True)
        )

    def _active(self) -> Tensor:
        return self.running.nonzero().squeeze(-1)

    def _plan(self, runs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The time of the next segment, its macro steps, and whether no output cuts it short."""
        lam, problem = self.lam[runs], of_runs(self.problem, runs)
        stable = LEVELS[0] * stable_step(problem, self.phase.w[:, runs], lam)
        step = self.step[runs] = torch.minimum(self.step[runs], stable)
        decay = DECAY / (LEVELS[0] ** 2 * lam)
        count = _rounded(torch.maximum(self.macro_steps[runs].to(step), decay * step))
        left = self._target(runs) - self.t[runs]
        whole = count * step < left
        span = torch.where(whole, count * step, left)
        needed = torch.maximum(span / step, (decay * span).sqrt()).clamp_min(FEWEST_MACRO_STEPS)
        return span, torch.where(whole, count, _rounded(needed)).long(), whole

    def _target(self, runs: Tensor) -> Tensor:
        return self.aim.times[self.served[runs], runs]

    def _advance(self, runs: Tensor, span: Tensor, count: int, whole: Tensor) -> None:
        """Try a segment; keep it where its error is small enough, and choose the next step."""
        work = count * (LEVELS[0] + sum(LEVELS))
        able = (self.steps[runs] + work <= self.aim.max_steps) & (
            self.t[runs] + span > self.t[runs]
        )
        self.running[runs[~able]] = False
        runs, span, whole = runs[able], span[able], whole[able]
        if len(runs) == 0:
            return
        start, error = self.phase.of(runs), self.error[:, :, runs]
        found = segment(
            *(self.problem, runs, self.lam[runs], start, error, span, count, self.aim.options)
        )
        self.steps[runs] += work
        ratio = _relative(found.local_error[0], found.end.w) / self.aim.rtol
        ratio = torch.where(ratio.isfinite(), ratio, torch.inf)
        factor = SAFETY * ratio.clamp_min(1e-30) ** (-1 / (ORDER - 1))
        step = span / count * factor.clamp(SHRINK, GROW)
        kept = ratio <= 1
        # a segment cut short tells nothing against the step that was planned
        held = kept & ~whole
        self.step[runs] = torch.where(held, torch.maximum(self.step[runs], step), step)
        self._keep(runs, kept, found, torch.where(whole, self.t[runs] + span, self._target(runs)))

    def _keep(self, runs: Tensor, kept: Tensor, found: Segment, t: Tensor) -> None:
        runs, end = runs[kept], found.end.of(kept)
        self.t[runs] = t[kept]
        self.phase.values[:, :, runs], self.phase.G[runs] = end
        self.error[:, :, runs] = found.error[:, :, kept]
        self.sign_changes[runs] += found.sign_changes[kept]
        self.macro_steps[runs] = (2 * self.macro_steps[runs]).clamp(max=MACRO_STEPS)

    def _judge(self, runs: Tensor) -> None:
        """Record outputs that are due; end the runs that are done."""
        due = runs[(self.t[runs] == self._target(runs))]
        self.served[due] += 1
        for row in self.served[due].unique().tolist():
            self._record(row, due[self.served[due] == row])
        if self.aim.tol is not None:
            self.converged[runs] = self._energy(runs) <= self.aim.tol
        self.running &= ~self.converged & (self.served < len(self.aim.times))

    def _energy(self, runs: Tensor) -> Tensor:
        phase, lam = self.phase.of(runs), self.lam[runs]
        speed = (phase.values[1] - phase.values[0]).square().sum((0, -1)) / lam.square()
        return of_runs(self.problem, runs).loss(phase.theta) + lam / 4 * speed

    def _record(self, row: int, runs: Tensor) -> None:
        self.out_t[row, runs] = self.t[runs]
        self.out_values[row][:, :, runs] = self.phase.values[:, :, runs]
        self.out_G[row, runs] = self.phase.G[runs]
        self.out_error[row, runs] = _relative(self.error[0][:, runs], self.phase.w[:, runs])


def _rounded(count: Tensor) -> Tensor:
    """The next power of two: runs with as many macro steps advance together."""
    return torch.exp2(torch.ceil(torch.log2(count))).clamp(max=2**40)


def _relative(error: Tensor, w: Tensor) -> Tensor:
    """The largest entry of the error over that of w, [R], from [2, R, d]."""
    return error.abs().amax((0, 2)) / w.abs().amax((0, 2))

"""R independent networks, advanced in blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.engine.backends import choose_backend
from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.parallel import for_each, split
from dln_momentum.engine.problems import (
    Measure,
    Problems,
    Report,
    first_of,
    groups_of,
    measure,
)
from dln_momentum.engine.random_inputs import RandomInputs
from dln_momentum.engine.scaled import CHECK_EVERY, ScaledProblem
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.state import State
from dln_momentum.engine.status import Status, divergence_ceiling, judge
from dln_momentum.errors import raise_if_any
from dln_momentum.problem import Problem
from dln_momentum.theory.discrete_bias import (
    boundary_term,
    telescoped_increment,
    telescoped_path_sums,
)

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise
    from dln_momentum.data.sampling import BatchStream

Runs = Tensor | slice


class Engine:
    """Heavy ball on R diagonal networks at once; R = 1 is no special case.

    Each run has its own gamma, beta, start and batch stream, on a problem that all share or on one
    of several. A run ends at the first check, every `CHECK_EVERY` steps, that finds it
    converged or diverged, whatever the blocks are; it keeps that state and costs nothing more, and
    no run ever touches another's numbers. With the numba backend a run's numbers are the same bits
    whatever runs are advanced beside it.

    Args:
        problem: the data, one problem for all runs, a stack of one for each (see `stack`), or
            `Problems`; its tensors' device is the engine's.
        gamma, beta: [R] float64.
        w_plus, w_minus: w_1, [R, d].
        previous: (w_{+,0}, w_{-,0}) if w_1 differs from w_0. Path sums then start from w_1 and
            have the term of the initial speed, -beta/(1-beta) (1 - w_0/w_1), so that the theorem
            holds as from rest.
        batches: the mini-batch stream; None for the full batch.
        label_noise: the label noise stream, if any.
        options: see `EngineOptions`.

    Raises:
        InputError: for shapes that do not fit, rates out of their range, and fewer than no steps.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((1, 2), 0.5, dtype=torch.float64)
    >>> rate = torch.tensor([0.05], dtype=torch.float64)
    >>> engine = Engine(problem, gamma=rate, beta=10 * rate, w_plus=w, w_minus=w)
    >>> engine.advance(1000)
    >>> engine.status_labels, problem.residual(engine.snapshot().theta).abs().max().item() < 1e-12
    (['converged'], True)
    """

    def __init__(
        self,
        problem: Problem | Problems,
        gamma: Tensor,
        beta: Tensor,
        w_plus: Tensor,
        w_minus: Tensor,
        *,
        previous: tuple[Tensor, Tensor] | None = None,
        batches: BatchStream | None = None,
        label_noise: LabelNoise | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        gamma, beta, w_plus, w_minus = (t.detach() for t in (gamma, beta, w_plus, w_minus))
        if previous is not None:
            previous = (previous[0].detach(), previous[1].detach())
        raise_if_any(_faults(problem, gamma, beta, w_plus, w_minus, previous))
        self.problem, self.groups = first_of(problem), groups_of(problem)
        self.options = options or EngineOptions()
        self.random_inputs = RandomInputs(batches, label_noise)
        self.gamma, self.beta = gamma, beta
        self.scaled = ScaledProblem.of(
            self.groups, gamma, beta, self.options.tol, self.options.divergence_bound
        )
        self.backend = choose_backend(self.options.backend, self.problem)
        self._scale = gamma.sqrt()[:, None] / 2
        self._start = tuple(_stored_once(w) for w in (w_plus, w_minus))
        self._speed_term = None
        if previous is not None and self.options.path_sums != "gradient_sum":
            self._speed_term = torch.stack(
                [
                    boundary_term(a, b, beta[:, None])
                    for a, b in zip(previous, self._start, strict=True)
                ]
            )
        self.state = self._first_state(previous)
        self._advance(torch.arange(len(gamma), device=gamma.device), 0, 0)
        self.state.loss_start = self.state.loss.clone()
        self._judge(self.running)

    @property
    def step(self) -> int:
        """Steps taken by the runs that are still running (or by the last to end)."""
        return int(self.state.steps.max())

    @property
    def running(self) -> Tensor:
        """Indices of the runs that have not ended."""
        return (self.state.status == Status.RUNNING).nonzero().squeeze(-1)

    @property
    def status_labels(self) -> list[str]:
        """The status of each run by name."""
        return [Status(int(code)).label for code in self.state.status]

    def advance(self, steps: int) -> None:
        """Advance every running run by a block of steps, or to the check at which it ends."""
        if steps < 0:
            raise_if_any([f"steps = {steps} must be >= 0"])
        self.advance_to(self.step + steps)

    def advance_to(self, step: int) -> None:
        """Advance every running run to a step, or to the check at which it ends.

        Runs that a lower tolerance has reopened are behind the others; they catch up.
        """
        self._account_for_changes()
        running = self.running
        steps = self.state.steps[running]
        for start in steps.unique().tolist():
            if start < step:
                self._advance(running[steps == start], start, step - start)
        if self.state.summed_until is not None:
            self.state.summed_until.copy_(self.state.w)
        if step % CHECK_EVERY == 0:
            self._judge(self.running)

    def run(self, max_steps: int, block_size: int = 1000) -> Snapshot:
        """Advance until every run has ended, or has taken ``max_steps``; then read them out."""
        if block_size < 1:
            raise_if_any([f"block_size = {block_size} must be >= 1"])
        target = self.step
        while len(self.running) and target < max_steps:
            target = min(self.step + block_size, max_steps)
            self.advance_to(target)
        self.stop()
        return self.snapshot()

    def stop(self) -> None:
        """Record that the step budget is spent: runs still running end as ``max_steps``.

        The last step is a check too: what has converged or diverged there ends as that.
        """
        self._judge(self.running)
        self.state.status[self.running] = int(Status.MAX_STEPS)

    def reopen(self) -> None:
        """Let the runs go on that the step budget ended, or that converged by a larger tolerance.

        So do those that converged at a last step that is no check: without that end they would
        have gone on to the next one.
        """
        state = self.state
        converged = state.status == Status.CONVERGED
        again = (state.loss > self.options.tol) | (state.steps % CHECK_EVERY != 0)
        state.status[(converged & again) | (state.status == Status.MAX_STEPS)] = int(Status.RUNNING)

    def variables(self, runs: Runs) -> tuple[Tensor, Tensor]:
        """(u, v) of some of the runs and their last increments, both [2, R, d].

        What a program needs to go on by itself, at a tenth of a snapshot's cost. Increments are 0
        where beta is, since nothing depends on them there.
        """
        beta, scale = self.beta[runs, None], 2 * self._scale[runs]
        w = self.state.w[:, runs]
        # p = w_k - beta w_{k-1}, so that p - (1 - beta) w is beta times the increment
        step = (self.state.p[:, runs] - (1 - beta) * w) / beta
        both = torch.stack([w, step.where(beta != 0, 0.0)]) / scale
        plus, minus = both.unbind(1)
        first, second = torch.stack([plus + minus, plus - minus], dim=1)
        return first, second

    def snapshot(self, runs: Runs | None = None) -> Snapshot:
        """The runs as they stand, in the poster's variables.

        Args:
            runs: indices or a slice, for a part of them: a snapshot takes about three times the
                memory of its runs' w, which for thousands of large networks need not exist at
                once. All runs by default.
        """
        runs = slice(None) if runs is None else runs
        state, gamma, beta = self.state, self.gamma[runs, None], self.beta[runs, None]
        scale = self._scale[runs]
        products, speed = state.increment_products, self._speed_term
        w = state.w[:, runs]
        # beta (1 - w_{k-1}/w_k) = p/w - (1 - beta)
        boundary = (state.p[:, runs] / w).div_(1 - beta).sub_(1)
        return Snapshot(
            step=self.step,
            gamma=gamma,
            beta=beta,
            w_start=torch.stack([w[runs] for w in self._start]),
            w=w / scale,
            boundary=boundary,
            speed_term=None if speed is None else speed[:, runs],
            gradient_sum=self._gradient_sum(runs),
            path_sums_from_iterates=self._path_sums(runs),
            increment_products=None if products is None else products[runs] / scale**2,
            loss=state.loss[runs].clone(),
            sign_changes=state.sign_changes[runs].clone(),
            steps=state.steps[runs].clone(),
            status=state.status[runs].clone(),
        )

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all runs, in their order.

        Args:
            function: takes the snapshot of some runs and their problem; values [R, ...] by name.
            report: called with the number of runs that have just been measured.
        """
        workers = self.options.num_workers
        return measure(self.snapshot, self.groups, len(self.gamma), function, workers, report)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a bitwise resume needs."""
        return self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Continue from `state_dict` of an engine built from the same inputs."""
        self.state.load_state_dict(saved)

    def _first_state(self, previous: tuple[Tensor, Tensor] | None) -> State:
        w = torch.stack(self._start).mul_(self._scale)
        increment = None if previous is None else w - torch.stack(previous) * self._scale
        return State.at_start(w, increment, self.beta, self.problem.n, self.options.path_sums)

    def _path_sums(self, runs: Runs) -> Tensor | None:
        """S_+- from the iterates, without its boundary term, [2, R, d], if it is summed."""
        sums = self.state.path_sums
        if sums is None:
            return None
        found = sums[:, runs].clone()
        if self.state.summed_until is not None:
            now = self.state.w[:, runs] / self._scale[runs]
            start = torch.stack([w[runs] for w in self._start])
            found = telescoped_path_sums(found, start, now, self.beta[runs, None])
        return found if self._speed_term is None else found - self._speed_term[:, runs]

    def _account_for_changes(self) -> None:
        """Count what something else has done to w since the last block as a step of the run.

        The telescoped sum knows the way from its last iterate to the present one by its ends
        alone; without this it would certify a run whose weights were written to.
        """
        state = self.state
        if state.summed_until is None or torch.equal(state.summed_until, state.w):
            return
        assert state.path_sums is not None
        jump = telescoped_increment(state.summed_until, state.w, self.beta[:, None])
        state.path_sums += jump.where(state.w != state.summed_until, 0.0)

    def _gradient_sum(self, runs: Runs) -> Tensor:
        """The sum of the batch gradients, [R, d]."""
        if len(self.groups) == 1:
            return self._summed_gradients(self.scaled[0], runs).div_(self.gamma[runs, None])
        chosen = torch.arange(len(self.gamma), device=self.gamma.device)[runs]
        sums = self.state.w.new_empty(len(chosen), self.problem.d)
        for scaled, members in zip(self.scaled, self._members(chosen), strict=True):
            if len(members):
                sums[members] = self._summed_gradients(scaled, chosen[members])
        return sums.div_(self.gamma[chosen, None])

    def _summed_gradients(self, scaled: ScaledProblem, runs: Runs) -> Tensor:
        """gamma times the sum of the batch gradients, for runs of one group."""
        residuals = self.state.residual_sum[runs]
        if scaled.shared:
            return residuals @ scaled.A
        return (residuals.unsqueeze(1) @ scaled.A[scaled.matrix[runs]]).squeeze(1)

    def _members(self, runs: Tensor) -> Iterator[Tensor]:
        """For each group, the places in ``runs`` of the runs that belong to it."""
        if len(self.groups) == 1:
            yield torch.arange(len(runs), device=runs.device)
            return
        for number in range(len(self.groups)):
            yield (self._group_of[runs] == number).nonzero().squeeze(-1)

    @cached_property
    def _group_of(self) -> Tensor:
        """The group of each run, int64 [R]."""
        found = torch.zeros(len(self.gamma), dtype=torch.int64, device=self.gamma.device)
        for number, group in enumerate(self.groups):
            if group.runs is not None:
                found[group.runs] = number
        return found

    def _advance(self, runs: Tensor, start: int, steps: int) -> None:
        """Advance runs at step ``start`` by ``steps``; 0 steps only evaluate the loss."""
        options, backend, state = self.options, self.backend, self.state
        largest = options.tile_runs or backend.tile_runs(self.problem.d)
        # one GPU has one queue
        threads = runs.device.type == "cpu" and self.problem.d >= backend.threads_from
        workers = options.num_workers if threads else 1
        tiles = [
            (scaled, tile)
            for scaled, members in zip(self.scaled, self._members(runs), strict=True)
            if len(members)
            for tile in split(runs[members], largest, backend.multiple, workers)
        ]
        alone = len(tiles) == 1 or workers == 1

        def advance_tile(of_group: tuple[ScaledProblem, Tensor]) -> None:
            scaled, tile = of_group
            draws = self.random_inputs if alone else self.random_inputs.for_a_thread()
            for chunk in draws.chunks(start, steps, tile):
                if chunk.start == start:
                    backend.advance(scaled, state, tile, chunk)
                    continue
                running = (state.status[tile] == Status.RUNNING).nonzero().squeeze(-1)
                if len(running) == 0:
                    return
                backend.advance(scaled, state, tile[running], chunk.part(running))

        for_each(advance_tile, tiles, workers)

    def _judge(self, runs: Tensor) -> None:
        """Give runs whose loss is known their status."""
        state, options = self.state, self.options
        ceiling = divergence_ceiling(state.loss_start[runs], options.tol, options.divergence_bound)
        state.status[runs] = judge(state.loss[runs], ceiling, options.tol)


def _faults(
    problem: Problem | Problems,
    gamma: Tensor,
    beta: Tensor,
    w_plus: Tensor,
    w_minus: Tensor,
    previous: tuple[Tensor, Tensor] | None,
) -> Iterator[str]:
    runs = (gamma.numel(),)
    rates = {"gamma": gamma, "beta": beta}
    iterates = {"w_plus": w_plus, "w_minus": w_minus}
    if previous is not None:
        iterates |= {"previous[0]": previous[0], "previous[1]": previous[1]}
    for name, tensor in (rates | iterates).items():
        shape = runs if name in rates else (*runs, first_of(problem).d)
        if tensor.shape != shape or tensor.dtype != torch.float64 or runs == (0,):
            yield f"{name} is {list(tensor.shape)} {tensor.dtype}; must be {list(shape)} float64"
    if isinstance(problem, Problems):
        if len(problem.index) != runs[0]:
            yield f"problem: index has {len(problem.index)} entries, one for each of {runs[0]} runs"
    elif tuple(problem.runs) not in ((), runs):
        yield f"problem is a stack of {list(problem.runs)}; must be one, or one for each run"
    if not bool(((gamma > 0) & gamma.isfinite()).all()):
        yield "gamma must be finite and > 0"
    # the leapfrog scheme has a beta below 0
    if not bool((beta.abs() < 1).all()):
        yield "beta must be in (-1, 1)"


def _stored_once(w: Tensor) -> Tensor:
    """A copy of w [R, d]; of one row where all are alike, so that thousands cost nothing."""
    alike = bool((w == w[:1]).all())
    return w[:1].clone().expand_as(w) if alike else w.clone()

"""R independent networks, advanced in blocks of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dln_momentum.arrays import integer_of
from dln_momentum.engine.backends import ROWS, choose_backend
from dln_momentum.engine.checks import (
    as_tensors,
    check_kinds,
    family_faults,
    faults,
    stream_faults,
)
from dln_momentum.engine.family import Family, is_plain
from dln_momentum.engine.footprint import Footprint
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
from dln_momentum.engine.small_targets import tell_of_small_targets
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.status import Status, divergence_ceiling, judge
from dln_momentum.engine.stored import Runs, Stored
from dln_momentum.engine.stored_family import StoredFamily
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.method import Method, StepRates
from dln_momentum.pace import Pace
from dln_momentum.problem import Problem

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise
    from dln_momentum.data.sampling import BatchStream


class Engine:
    """Heavy ball on R diagonal networks at once; R = 1 is no special case.

    Each run has its own gamma, beta, start and batch stream, on a problem that all share or on one
    of several. A run ends at the first check, every `CHECK_EVERY` steps, that finds it
    converged or diverged, whatever the blocks are; it keeps that state and costs nothing more, and
    no run ever touches another's numbers. With the numba and cuda backends a run's numbers are the
    same bits whatever runs are advanced beside it.

    Args:
        problem: the data, one problem for all runs, a stack of one for each (see `stack`), or
            `Problems`; its tensors' device is the engine's.
        gamma, beta: [R]; these and the iterates are lists, arrays or tensors, cast to float64.
        w_plus, w_minus: w_1, [R, d].
        previous: (w_{+,0}, w_{-,0}) if w_1 differs from w_0. Path sums then start from w_1 and
            have the term of the initial speed, -beta/(1-beta) (1 - w_0/w_1), so that the theorem
            holds as from rest.
        batches: the mini-batch stream, of the n of the data and one seed, or one for each run; None
            for the full batch.
        label_noise: the label noise stream, if any, likewise.
        options: see `EngineOptions`.
        method: the member of the family; None for heavy ball with constant rates. Its numbers are
            one for all runs or [R].

    Raises:
        InputError: for shapes that do not fit, rates out of their range, iterates that are not
            finite or 0, and streams of other data; also by the methods, for a number of steps below
            0.

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
        gamma: Any,
        beta: Any,
        w_plus: Any,
        w_minus: Any,
        *,
        previous: tuple[Any, Any] | None = None,
        batches: BatchStream | None = None,
        label_noise: LabelNoise | None = None,
        options: EngineOptions | None = None,
        method: Method | None = None,
    ) -> None:
        check_kinds(
            problem=(problem, (Problem, Problems), "a Problem or Problems"),
            options=(options, (EngineOptions, NoneType), "EngineOptions(...) or None"),
            method=(method, (Method, NoneType), "a Method or None"),
            previous=(previous, (tuple, list, NoneType), "a pair (w_plus, w_minus) or None"),
        )
        options, self.method = options or EngineOptions(), method or Method()
        rates = as_tensors(problem, {"gamma": gamma, "beta": beta})
        if previous is not None and len(previous) != 2:
            raise_if_any([f"previous has {len(previous)} entries; must be (w_plus, w_minus)"])
        iterates = {"w_plus": w_plus, "w_minus": w_minus}
        for number, w in enumerate(previous or ()):
            iterates[f"previous[{number}]"] = w
        iterates, runs = as_tensors(problem, iterates), rates["gamma"].numel()
        plain = is_plain(self.method, first_of(problem))
        # before any value is looked at: rows may be one, repeated, that only copies would fill
        raise_if_any(_size_errors(problem, runs, options.path_sums, plain=plain))
        streams = {"batches": batches, "label_noise": label_noise}
        raise_if_any(
            [
                *faults(problem, rates, iterates, options),
                *stream_faults(first_of(problem).n, runs, streams),
            ]
        )
        # copies, which nobody else can write to
        gamma, beta = (rate.clone().contiguous() for rate in rates.values())
        w_plus, w_minus, *before = iterates.values()
        previous = (before[0], before[1]) if before else None
        self.options = options.on(*(group.problem for group in groups_of(problem)))
        if not plain:
            raise_if_any(
                family_faults(problem, gamma, beta, self.method, self.options, label_noise)
            )
            self.method = self.method.flat((len(gamma),))
        self.problem, self.groups = first_of(problem), groups_of(problem)
        self.random_inputs = RandomInputs(batches, label_noise)
        self.gamma, self.beta = gamma, beta
        self._stored = (
            Stored(gamma, beta, (w_plus, w_minus), previous, self.options.path_sums)
            if plain
            else StoredFamily(
                self.method,
                Family.of(self.method, first_of(problem).loss_name, gamma),
                gamma,
                beta,
                (w_plus, w_minus),
                previous,
            )
        )
        self._rates = None if plain else self._rates_of
        self.scaled = self._stored.scaled_problems(self.groups, self.options)
        shared = all(scaled.shared for scaled in self.scaled)
        self.backend = choose_backend(
            self.options.backend, self.problem, plain=plain, shared=shared
        )
        self.state = self._stored.first_state(self.problem.n)
        self._advance(torch.arange(len(gamma), device=gamma.device), 0, 0)
        self.state.loss_start = self.state.loss.clone()
        self._judge(self.running)
        tell_of_small_targets((group.problem for group in self.groups), self.options.tol)

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
        self.advance_to(self.step + integer_of("steps", steps, 0))

    def advance_to(self, step: int) -> None:
        """Advance every running run to a step, or to the check at which it ends.

        Runs that a lower tolerance has reopened are behind the others; they catch up.
        """
        step = integer_of("step", step, 0)
        self.state.check()
        self._stored.account_for_changes(self.state)
        running = self.running
        steps = self.state.steps[running]
        for start in steps.unique().tolist():
            if start < step:
                self._advance(running[steps == start], start, step - start)
        if self.state.summed_until is not None:
            self.state.summed_until.copy_(self.state.w)
        if step % CHECK_EVERY == 0:
            self._judge(self.running)
        self._give_back()

    def run(self, max_steps: int, block_size: int | None = None) -> Snapshot:
        """Advance until every run has ended, or has taken ``max_steps``; then read them out.

        Args:
            max_steps: the last step.
            block_size: steps to a block; None for as many as a `Pace` gives.
        """
        max_steps = integer_of("max_steps", max_steps, 0)
        if block_size is not None:
            block_size = integer_of("block_size", block_size, 1)
        target, pace = self.step, Pace(self.problem.n * self.problem.d * len(self.gamma))
        while len(self.running) and target < max_steps:
            before, started = self.step, time.perf_counter()
            target = min(before + (block_size or pace.steps), max_steps)
            self.advance_to(target)
            pace.measured(self.step - before, time.perf_counter() - started)
        self.stop()
        return self.snapshot()

    def stop(self) -> None:
        """Record that the step budget is spent: runs still running end as ``max_steps``.

        The last step is a check too: what has converged or diverged there ends as that.
        """
        self._judge(self.running)
        self.state.status[self.running] = int(Status.MAX_STEPS)
        self._give_back()

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
        return self._stored.variables(self.state, self._checked(runs))

    def snapshot(self, runs: Runs | None = None) -> Snapshot:
        """The runs as they stand, in the poster's variables.

        Args:
            runs: indices or a slice, for a part of them: a snapshot takes about three times the
                memory of its runs' w, which for thousands of large networks need not exist at
                once. All runs by default.
        """
        runs = slice(None) if runs is None else self._checked(runs)
        return self._stored.snapshot(self.state, runs, self._summed_gradients(runs), self.step)

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all runs, in their order.

        Args:
            function: takes the snapshot of some runs and their problem; values [R, ...] by name.
            report: called with the number of runs that have just been measured.
        """
        if not callable(function):
            raise_if_any([f"function = {function!r} must be a function of (snapshot, problem)"])
        workers = self.options.num_workers
        return measure(self.snapshot, self.groups, len(self.gamma), function, workers, report)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a bitwise resume needs."""
        return self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Continue from `state_dict` of an engine built from the same inputs.

        Raises:
            InputError: for tensors of another state: names, shapes, types or statuses differ.
        """
        self.state.load_state_dict(saved)

    def _checked(self, runs: Any) -> Runs:
        """A slice, or indices of runs there are, int64 or boolean."""
        if isinstance(runs, slice):
            return runs
        try:
            found = torch.arange(len(self.gamma), device=self.gamma.device)[torch.as_tensor(runs)]
        except (IndexError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                [f"runs = {runs!r} must be a slice, or indices in [0, {len(self.gamma)})"]
            ) from error
        return torch.atleast_1d(found)

    def _summed_gradients(self, runs: Runs) -> Tensor:
        """X^T/sqrt(n) times the summed residuals, [R, d]."""
        if len(self.groups) == 1:
            return self.scaled[0].summed_gradients(self.state.residual_sum[runs], runs)
        chosen = torch.arange(len(self.gamma), device=self.gamma.device)[runs]
        sums = self.state.w.new_empty(len(chosen), self.problem.d)
        for scaled, members in zip(self.scaled, self._members(chosen), strict=True):
            if len(members):
                here = chosen[members]
                sums[members] = scaled.summed_gradients(self.state.residual_sum[here], here)
        return sums

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
        n, d = self.problem.n, self.problem.d
        long = steps * len(runs) * (n + ROWS) * d >= backend.shared_from
        # one GPU has one queue
        threads = runs.device.type == "cpu" and d >= backend.threads_from and long
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
            for chunk in draws.chunks(start, steps, tile, self._rates):
                if chunk.start == start:
                    backend.advance(scaled, state, tile, chunk)
                    continue
                running = (state.status[tile] == Status.RUNNING).nonzero().squeeze(-1)
                if len(running) == 0:
                    return
                backend.advance(scaled, state, tile[running], chunk.part(running))

        for_each(advance_tile, tiles, workers)

    def _rates_of(self, runs: Tensor, first: int, steps: int) -> StepRates:
        """The rates of some runs for the steps from k = first on."""
        return self.method.of(runs).rates(self.gamma[runs], self.beta[runs], first, steps)

    def _give_back(self) -> None:
        """Forget how the kernels have laid X out, once no run needs it: the read-out needs room."""
        if not len(self.running):
            for scaled in self.scaled:
                scaled.give_back()

    def _judge(self, runs: Tensor) -> None:
        """Give runs whose loss is known their status."""
        state, options = self.state, self.options
        ceiling = divergence_ceiling(state.loss_start[runs], options.tol, options.divergence_bound)
        state.status[runs] = judge(state.loss[runs], ceiling, options.tol)


def _size_errors(
    problem: Problem | Problems, runs: int, path_sums: str, *, plain: bool
) -> Iterator[str]:
    """What is wrong with runs that do not fit into memory; on a GPU it is the card that says so."""
    first = first_of(problem)
    stacked = runs if isinstance(problem, Problem) and problem.runs else 1
    footprint = Footprint(
        runs, first.n, first.d, data_sets=stacked, path_sums=path_sums, plain=plain
    )
    if first.X.device.type == "cpu":
        large = runs > first.d
        yield from footprint.engine_errors(f"gamma [{runs}]" if large else f"d = {first.d}")

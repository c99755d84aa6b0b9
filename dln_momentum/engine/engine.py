"""R independent networks, advanced in blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.engine.backends import choose_backend
from dln_momentum.engine.draws import Draws
from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.parallel import for_each, split
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.state import State
from dln_momentum.engine.status import Status, judge
from dln_momentum.errors import refuse
from dln_momentum.problem import Problem

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise
    from dln_momentum.data.sampling import BatchStream

Runs = Tensor | slice


class Engine:
    """Heavy ball on R diagonal networks at once; R = 1 is no special case.

    Each run has its own gamma, beta, start and batch stream, on one shared problem or on one
    problem per run. Convergence and divergence are judged at the end of each block; a run that has
    ended keeps that state and costs nothing more, and no run ever touches another's numbers. With
    the numba backend a run's numbers are the same bits whatever runs are advanced beside it.

    Args:
        problem: the data; its tensors' device is the engine's.
        gamma, beta: [R] float64.
        w_plus, w_minus: w_1, [R, d].
        previous: (w_{+,0}, w_{-,0}) if w_1 differs from w_0. The path sums and the theorem assume
            zero initial speed, so they do not apply then.
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
        problem: Problem,
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
        refuse(_faults(problem, gamma, beta, w_plus, w_minus, previous))
        self.problem = problem
        self.options = options or EngineOptions()
        self.draws = Draws(batches, label_noise)
        self.gamma, self.beta = gamma, beta
        self.scaled = ScaledProblem.of(problem, gamma, beta, self.options.tol)
        self.backend = choose_backend(self.options.backend, problem)
        self._scale = gamma.sqrt()[:, None] / 2
        self._start = tuple(_stored_once(w) for w in (w_plus, w_minus))
        self.state = self._first_state(previous)
        self._advance(torch.arange(len(gamma), device=gamma.device), steps=0)
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
        """Advance every running run by a block of steps, then judge which have ended."""
        if steps < 0:
            refuse([f"steps = {steps} must be >= 0"])
        running = self.running
        self._advance(running, steps)
        self._judge(running)

    def run(self, max_steps: int, block_size: int = 1000) -> Snapshot:
        """Advance until every run has ended, or has taken ``max_steps``; then read them out."""
        if block_size < 1:
            refuse([f"block_size = {block_size} must be >= 1"])
        while len(self.running) and self.step < max_steps:
            self.advance(min(block_size, max_steps - self.step))
        self.stop()
        return self.snapshot()

    def stop(self) -> None:
        """Record that the step budget is spent: runs still running end as ``max_steps``."""
        self.state.status[self.running] = int(Status.MAX_STEPS)

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
        sums, products = state.path_sums, state.increment_products
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
            gradient_sum=self._gradient_sum(runs),
            direct_path_sums=None if sums is None else sums[:, runs].clone(),
            increment_products=None if products is None else products[runs] / scale**2,
            loss=state.loss[runs].clone(),
            sign_changes=state.sign_changes[runs].clone(),
            reached_tol=state.reached_tol[runs].clone(),
            steps=state.steps[runs].clone(),
            status=state.status[runs].clone(),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a bitwise resume needs."""
        return self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Continue from `state_dict` of an engine built from the same inputs."""
        self.state.load_state_dict(saved)

    def _first_state(self, previous: tuple[Tensor, Tensor] | None) -> State:
        w = torch.stack(self._start).mul_(self._scale)
        increment = None if previous is None else w - torch.stack(previous) * self._scale
        audit = self.options.path_sums == "direct"
        return State.at_start(w, increment, self.beta, self.problem.n, audit=audit)

    def _gradient_sum(self, runs: Runs) -> Tensor:
        A, residuals = self.scaled.A, self.state.residual_sum[runs]
        if self.scaled.shared:
            sums = residuals @ A
        else:
            sums = (residuals.unsqueeze(1) @ A[runs]).squeeze(1)
        return sums.div_(self.gamma[runs, None])

    def _advance(self, runs: Tensor, steps: int) -> None:
        """Advance by ``steps``, without a verdict; 0 steps only evaluate the loss."""
        options, backend = self.options, self.backend
        largest = options.tile_runs or backend.tile_runs(self.problem.d)
        # one GPU has one queue
        threads = runs.device.type == "cpu" and self.problem.d >= backend.threads_from
        workers = options.num_workers if threads else 1
        tiles = split(runs, largest, backend.multiple, workers)
        alone, start = len(tiles) == 1 or workers == 1, self.step

        def advance_tile(tile: Tensor) -> None:
            draws = self.draws if alone else self.draws.for_a_thread()
            for piece in draws.pieces(start, steps, tile):
                backend.advance(self.scaled, self.state, tile, piece)
                self.state.steps.index_fill_(0, tile, piece.start + piece.steps)

        for_each(advance_tile, tiles, workers)

    def _judge(self, runs: Tensor) -> None:
        state, options = self.state, self.options
        status = judge(
            state.loss[runs], state.loss_start[runs], options.tol, options.divergence_bound
        )
        if status.any():
            ended = status != Status.RUNNING
            runs, status = runs[ended], status[ended]
            state.status[runs] = status
            first = runs[(status == Status.CONVERGED) & (state.reached_tol[runs] < 0)]
            state.reached_tol[first] = state.steps[first]


def _faults(
    problem: Problem,
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
        shape = runs if name in rates else (*runs, problem.d)
        if tensor.shape != shape or tensor.dtype != torch.float64 or runs == (0,):
            yield f"{name} is {list(tensor.shape)} {tensor.dtype}; must be {list(shape)} float64"
    if tuple(problem.runs) not in ((), runs):
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

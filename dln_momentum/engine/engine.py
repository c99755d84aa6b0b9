"""R independent networks, advanced in blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.engine.backends import choose_backend
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.state import State
from dln_momentum.engine.status import Status
from dln_momentum.engine.tile import ScaledProblem
from dln_momentum.errors import refuse
from dln_momentum.problem import Problem

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise
    from dln_momentum.data.sampling import BatchStream

BATCH_BYTES = 2**26
"""How much memory the batch weights of one tile may take; longer blocks are cut into pieces."""


@dataclass(frozen=True)
class EngineOptions:
    """How runs are advanced; none of it changes their mathematics."""

    backend: str = "auto"
    """``auto``, ``torch`` or ``numba``"""
    path_sums: str = "n_space"
    """``n_space``: S_+- from the gradient sum (an identity: cheap, and no test of the theorem);
    ``direct``: S_+- by definition at every step"""
    tol: float = 1e-24
    """a run whose training loss is at or below it at a block's end has converged"""
    divergence_bound: float = 1e10
    """a run whose loss exceeds this many times its first loss has diverged"""
    tile_runs: int | None = None
    """runs to a tile; None for the measured rule"""
    num_workers: int = 1
    """threads that advance tiles; each uses one core"""

    def __post_init__(self) -> None:
        refuse(
            f"engine.{key} = {value!r} must be {allowed}"
            for key, value, ok, allowed in (
                ("backend", self.backend, self.backend in BACKENDS, f"one of {BACKENDS}"),
                ("path_sums", self.path_sums, self.path_sums in PATH_SUMS, f"one of {PATH_SUMS}"),
                ("tol", self.tol, self.tol >= 0, ">= 0"),
                ("divergence_bound", self.divergence_bound, self.divergence_bound > 1, "> 1"),
                ("tile_runs", self.tile_runs, (self.tile_runs or 1) >= 1, ">= 1 or null"),
                ("num_workers", self.num_workers, self.num_workers >= 1, ">= 1"),
            )
            if not ok
        )


BACKENDS = ("auto", "torch")
PATH_SUMS = ("n_space", "direct")


class Engine:
    """Heavy ball on R diagonal networks at once; R = 1 is no special case.

    Each run has its own gamma, beta, start and batch stream, on one shared problem or on one
    problem per run. Convergence and divergence are judged at the end of each block; a run that has
    ended keeps that state and costs nothing more, and no run ever touches another's numbers.

    Args:
        problem: the data; its tensors' device is the engine's.
        gamma, beta: [R] float64.
        w_plus, w_minus: w_1, [R, d].
        previous: (w_{+,0}, w_{-,0}) if w_1 differs from w_0. The path sums and the theorem assume
            zero initial speed, so they do not apply then.
        batches: the mini-batch stream; None for the full batch.
        label_noise: the label noise stream, if any.
        options: see `EngineOptions`.

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
        self.problem = problem
        self.options = options or EngineOptions()
        self.batches = None if batches is None or batches.full_batch else batches
        self.label_noise = label_noise
        self.gamma, self.beta = gamma, beta
        self.scaled = ScaledProblem.of(problem, gamma, beta)
        self.backend = choose_backend(self.options.backend, problem, runs=len(gamma))
        self._scale = gamma.sqrt()[:, None] / 2
        start = torch.stack([w_plus, w_minus]) * self._scale
        before = start if previous is None else torch.stack(previous) * self._scale
        audit = self.options.path_sums == "direct"
        self.state = State.at_rest(start, before, beta, problem.n, audit=audit)
        self.state.loss = problem.loss(self.snapshot().theta)
        self.state.loss_start = self.state.loss.clone()
        self._judge(torch.arange(len(gamma), device=gamma.device))

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
        running = self.running
        tiles = running.split(self._tile_runs(len(running))) if len(running) else ()
        if self.options.num_workers > 1 and len(tiles) > 1:
            with ThreadPoolExecutor(self.options.num_workers) as pool:
                list(pool.map(lambda runs: self._advance_tile(runs, steps), tiles))
        else:
            for runs in tiles:
                self._advance_tile(runs, steps)
        self._judge(running)

    def run(self, max_steps: int, block_size: int = 1000) -> Snapshot:
        """Advance until every run has ended, or has taken ``max_steps``; then read them out."""
        while len(self.running) and self.step < max_steps:
            self.advance(min(block_size, max_steps - self.step))
        self.stop()
        return self.snapshot()

    def stop(self) -> None:
        """Record that the step budget is spent: runs still running end as ``max_steps``."""
        self.state.status[self.running] = int(Status.MAX_STEPS)

    def snapshot(self) -> Snapshot:
        """Every run as it stands, in the poster's variables."""
        state, gamma, beta = self.state, self.gamma[:, None], self.beta[:, None]
        A = self.scaled.A
        residuals = state.residual_sum
        sums = residuals @ A if A.ndim == 2 else (residuals.unsqueeze(1) @ A).squeeze(1)
        products = state.increment_products
        return Snapshot(
            step=self.step,
            gamma=gamma,
            beta=beta,
            w_start=state.w_start / self._scale,
            w=state.w / self._scale,
            # beta (1 - w_{k-1}/w_k) = p/w - (1 - beta)
            boundary=state.p / ((1 - beta) * state.w) - 1,
            gradient_sum=sums / gamma,
            direct_path_sums=None if state.path_sums is None else state.path_sums.clone(),
            increment_products=None if products is None else products / self._scale**2,
            loss=state.loss.clone(),
            sign_changes=state.sign_changes.clone(),
            reached_tol=state.reached_tol.clone(),
            steps=state.steps.clone(),
            status=state.status.clone(),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a bitwise resume needs."""
        return self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Continue from `state_dict` of an engine built from the same inputs."""
        self.state.load_state_dict(saved)

    def _tile_runs(self, running: int) -> int:
        if self.options.tile_runs is not None:
            return self.options.tile_runs
        share = -(-running // self.options.num_workers)
        return min(share, self.backend.tile_runs(self.problem.n, self.problem.d))

    def _advance_tile(self, runs: Tensor, steps: int) -> None:
        tile = self.scaled.gather(self.state, runs, self.options.tol)
        for start, stop in self._pieces(tile.step, steps, len(runs)):
            weights = None if self.batches is None else self.batches.weights(start, stop, runs)
            self.backend.advance(tile, stop - start, weights, self._noise(start, stop, runs))
        self.scaled.scatter(tile, self.state, runs)

    def _pieces(self, start: int, steps: int, runs: int) -> Iterator[tuple[int, int]]:
        """Cut a block so that the batch weights of a piece fit into `BATCH_BYTES`."""
        sampled = self.batches is not None or self.label_noise is not None
        piece = max(1, BATCH_BYTES // (8 * runs * self.problem.n)) if sampled else steps
        for first in range(start, start + steps, piece):
            yield first, min(first + piece, start + steps)

    def _noise(self, start: int, stop: int, runs: Tensor) -> Tensor | None:
        noise = None if self.label_noise is None else self.label_noise.noise(start, stop, runs)
        if noise is None:
            return None
        return noise * (self.gamma[runs, None] / self.problem.n**0.5)

    def _judge(self, runs: Tensor) -> None:
        state, options = self.state, self.options
        loss = state.loss[runs]
        bound = options.divergence_bound * state.loss_start[runs].clamp_min(options.tol)
        converged = loss <= options.tol
        diverged = ~(loss <= bound)  # nan compares false: not finite counts as diverged
        state.status[runs[converged]] = int(Status.CONVERGED)
        state.status[runs[diverged]] = int(Status.DIVERGED)
        first = converged & (state.reached_tol[runs] < 0)
        state.reached_tol[runs[first]] = state.steps[runs[first]]

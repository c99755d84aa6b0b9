"""One block of steps in plain torch, in place, on any device.

With the scaling of `State`, one full step is two matrix products and a few passes over [R, d]:

    theta' = w_+^2 - w_-^2          gamma theta
    res    = theta' A^T - gamma y'  gamma (X theta - y)/sqrt(n)
    G      = res A                  gamma g
    p_+-  -= +-G w_+-
    w_+-   = p_+- + beta w_+-

Steps are taken `CHECK_EVERY` at a time in memory that stays where it is, so that a GPU records
them once a block, as a CUDA graph, and repeats that: one launch in place of some two hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from dln_momentum.data.sampling import row_weights
from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import CHECK_EVERY, ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.engine.status import Status, divergence_ceiling, judge
from dln_momentum.engine.tile import Tile
from dln_momentum.theory.discrete_bias import path_sum_increment, telescoped_increment

Replay = Callable[[], None]
Drawn = tuple[Tensor | None, ...]
"""Label noise and batch weights, [steps, R_t or 1, n] each, or None; then what a subclass of
`Steps` takes for each step."""


def advance(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    """Advance ``runs`` of the state by the steps of a chunk, in place; see `backends.Kernel`."""
    tile = Tile.gather(scaled, state, runs)
    take_steps(Steps(tile, scaled, state, runs, chunk.start), chunk)
    tile.scatter(state, runs)


def take_steps(stepping: Steps, chunk: Chunk) -> None:
    """Take the steps of a chunk, and leave the runs that end on the way at their ends."""
    device = stepping.tile.w.device
    drawn = partial(stepping.drawn, chunk.to(device))
    to_check = min(-chunk.start % CHECK_EVERY, chunk.steps)
    done = chunk.steps - (chunk.steps - to_check) % CHECK_EVERY
    stepping.take(to_check, drawn(0, to_check), check=False)
    _repeat(stepping, drawn, range(to_check, done, CHECK_EVERY), device)
    stepping.take(chunk.steps - done, drawn(done, chunk.steps), check=True)
    stepping.finish(chunk.start + chunk.steps)


class Steps:
    """The steps of a tile and their buffers: every call uses the same memory.

    A run that has ended goes on with the others, which is cheaper than to leave it out; what it
    was at the check that found it ended is kept beside, and is what remains of it.
    """

    def __init__(
        self, tile: Tile, scaled: ScaledProblem, state: State, runs: Tensor, step: int
    ) -> None:
        self.tile, self._noise_scale = tile, scaled.noise_scale[runs, None]
        self._tol, self._loss_scale = scaled.tol, 2 * scaled.gamma[runs] ** 2
        self._ceiling = divergence_ceiling(
            state.loss_start[runs], scaled.tol, scaled.divergence_bound
        )
        self._ended = [torch.empty_like(rows) for rows, _ in tile.rows()]
        self._theta, self._gradient = torch.empty_like(tile.w[0]), torch.empty_like(tile.w[0])
        self._residual = torch.empty_like(tile.residual_sum)
        self._negative, self._before = tile.w.signbit(), tile.w.signbit()
        self._step = torch.tensor(step, device=tile.w.device)

    def take(self, steps: int, drawn: Drawn, *, check: bool) -> None:
        """Take so many steps, at most `CHECK_EVERY`, after a check of the loss if one is due."""
        noise, weights, *rates = drawn
        for k in range(steps):
            self._evaluate()
            if check and k == 0:
                self._keep_ended()
            self._set_rates(rates, k)
            if noise is not None:
                self._residual.addcmul_(noise[k], self._noise_scale, value=-1)
            if weights is not None:
                self._residual.mul_(weights[k])
            self._update()
        self._step.add_(steps)
        # an entry's count is a byte
        self.tile.sign_changes.add_(self.tile.new_sign_changes.sum((0, 2), dtype=torch.int64))
        self.tile.new_sign_changes.zero_()

    def finish(self, step: int) -> None:
        """Put what was kept of the runs that ended in place of what they have become since."""
        tile = self.tile
        self._evaluate()
        running = tile.status == Status.RUNNING
        tile.loss.copy_(torch.where(running, self._loss(), tile.loss))
        tile.steps.copy_(torch.where(running, step, tile.steps))
        for (rows, axis), kept in zip(tile.rows(), self._ended, strict=True):
            rows.copy_(torch.where(_along(running, rows, axis), rows, kept))

    def drawn(self, chunk: Chunk, start: int, stop: int) -> Drawn:
        """What differs between the steps from start to stop of a chunk."""
        noise = None if chunk.noise is None else chunk.noise[start:stop]
        if chunk.batches is None:
            return noise, None
        # weights take more memory than batches
        return noise, row_weights(chunk.batches[start:stop], self.tile.residual_sum.shape[-1])

    def _set_rates(self, rates: Sequence[Tensor | None], k: int) -> None:
        """Take the rates of step k, where they change, with the predictions still in residual."""

    def _loss(self) -> Tensor:
        return self._residual.square().sum(-1) / self._loss_scale

    def _keep_ended(self) -> None:
        """Note which runs have ended, and keep what they are."""
        tile, loss = self.tile, self._loss()
        verdicts = judge(loss, self._ceiling, self._tol)
        now = (verdicts != Status.RUNNING) & (tile.status == Status.RUNNING)
        # a recorded graph cannot ask whether there are any
        if now.device.type == "cpu" and not now.any():
            return
        tile.loss.copy_(torch.where(now, loss, tile.loss))
        tile.status.copy_(torch.where(now, verdicts, tile.status))
        tile.steps.copy_(torch.where(now, self._step, tile.steps))
        for (rows, axis), kept in zip(tile.rows(), self._ended, strict=True):
            kept.copy_(torch.where(_along(now, rows, axis), rows, kept))

    def _evaluate(self) -> None:
        w, theta = self.tile.w, self._theta
        torch.mul(w[0], w[0], out=theta)
        theta.addcmul_(w[1], w[1], value=-1)
        self.tile.residual_into(self._residual, theta)

    def _update(self) -> None:
        tile = self.tile
        tile.residual_sum.add_(self._residual)
        tile.gradient_into(self._gradient, self._residual)
        tile.p[0].addcmul_(self._gradient, tile.w[0], value=-1)
        tile.p[1].addcmul_(self._gradient, tile.w[1])
        if tile.path_sums is None:
            torch.addcmul(tile.p, tile.w, tile.beta, out=tile.w)
        else:
            _summed_update(tile)
        self._count_sign_changes()

    def _count_sign_changes(self) -> None:
        # an even number of steps leaves both where they were, as a recording needs
        self._negative, self._before = self._before, self._negative
        torch.signbit(self.tile.w, out=self._negative)
        changed = self._before.logical_xor_(self._negative)
        self.tile.new_sign_changes.add_(changed.view(torch.uint8))


def _repeat(
    stepping: Steps,
    drawn: Callable[[int, int], Drawn],
    starts: range,
    device: torch.device,
) -> None:
    """Take `CHECK_EVERY` steps from each start on; on a GPU once as they are, and then recorded."""
    chunks = (drawn(start, start + CHECK_EVERY) for start in starts)
    if device.type != "cuda" or len(starts) < 3:
        for chunk in chunks:
            stepping.take(CHECK_EVERY, chunk, check=True)
        return
    first = tuple(None if t is None else t.clone() for t in next(chunks))
    replay = _graph(device, lambda: stepping.take(CHECK_EVERY, first, check=True))
    for chunk in chunks:
        for kept, now in zip(first, chunk, strict=True):
            if kept is not None and now is not None:
                kept.copy_(now)
        replay()


def _graph(device: torch.device, steps: Replay) -> Replay:
    """Take the steps once, which readies the libraries they call, and record them.

    What the steps allocate while they are recorded belongs to the graph, and is given back when
    the next block is recorded. Both happen on one stream, whose workspace for matrix products is
    allocated the first time and never again.
    """
    with torch.cuda.device(device):
        here, side, graph = (
            torch.cuda.current_stream(),
            _side_stream(device),
            torch.cuda.CUDAGraph(),
        )
        side.wait_stream(here)
        with torch.cuda.stream(side):
            steps()
        with torch.cuda.graph(graph, stream=side):
            steps()
        here.wait_stream(side)
    return graph.replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _summed_update(tile: Tile) -> None:
    """The same update, with what S_+- needs and the products of increments summed."""
    assert tile.path_sums is not None
    assert tile.increment_products is not None
    w_next = torch.addcmul(tile.p, tile.w, tile.beta)
    step = w_next - tile.w
    increment = telescoped_increment if tile.telescoped else path_sum_increment
    tile.path_sums.add_(increment(tile.w, w_next, tile.beta))
    tile.increment_products.addcmul_(step[0], step[1])
    tile.w.copy_(w_next)


def _along(runs: Tensor, rows: Tensor, axis: int) -> Tensor:
    """A flag of each run [R_t], to act on rows that have the runs along an axis."""
    return runs.reshape((1,) * axis + (-1,) + (1,) * (rows.ndim - axis - 1))

"""Mini-batches: the rows that each step of each run uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dln_momentum.arrays import is_integer, is_one_of
from dln_momentum.data.streams import CHUNK, Runs, SeededStream, per_run
from dln_momentum.seeding import Purpose

SAMPLINGS = ("with_replacement", "without_replacement", "reshuffle")
"""How the rows of a batch are drawn."""


@dataclass(frozen=True)
class BatchStream(SeededStream):
    """The mini-batches B_t of stochastic heavy ball, t = 0, 1, ...

    (docs/theory.md#diagonal-network; poster, section 3.)

    The batch of step t is a function of (seed, t) alone, so it does not depend on the window of
    steps or the runs that are asked for. With the counts c_j of row j in B_t,

        grad L_B(theta) = X^T (c * (X theta - y)) / |B| = X^T (weights * (X theta - y)) / n.

    =======================  =======================================================================
    sampling                 the rows of B_t
    =======================  =======================================================================
    ``with_replacement``     |B| independent uniform rows
    ``without_replacement``  a uniform subset of |B| distinct rows; different steps are independent,
                             so there are no epochs
    ``reshuffle``            random reshuffling: the rows are read in the order of one uniform
                             permutation after another, |B| at a time, so each row is read once in
                             each epoch of n reads. Epoch e is the reads e n <= i < (e + 1) n, and
                             step t makes the reads t |B| <= i < (t + 1) |B|; a batch lies in two
                             epochs, and may then hold a row twice, where |B| does not divide n
    =======================  =======================================================================

    Args:
        n: number of rows.
        batch_size: |B| in [1, n]; None for all rows.
        sampling: one of `SAMPLINGS`.
        seeds: one integer that all runs share, or one per run.

    Raises:
        InputError: listing every argument out of its range.

    >>> batches = BatchStream(n=5, batch_size=2, sampling="without_replacement", seeds=[0, 0, 1])
    >>> batches.indices(1000, 1002).shape
    torch.Size([2, 3, 2])
    >>> batches.weights(1000, 1001, runs=slice(1, 3))
    tensor([[[2.5000, 0.0000, 0.0000, 2.5000, 0.0000],
             [0.0000, 0.0000, 2.5000, 0.0000, 2.5000]]], dtype=torch.float64)
    >>> BatchStream(4, 2, "reshuffle", 0).indices(0, 4).view(2, 4).sort().values
    tensor([[0, 1, 2, 3],
            [0, 1, 2, 3]])
    """

    n: int
    batch_size: int | None
    sampling: str
    seeds: int | Sequence[int]
    purpose: ClassVar[Purpose] = Purpose.BATCHES

    @property
    def full_batch(self) -> bool:
        """Whether every step uses each row once."""
        all_rows = self.batch_size == self.n and self.sampling != "with_replacement"
        return self.batch_size is None or all_rows

    def indices(self, start: int, stop: int, runs: Runs = None) -> Tensor:
        """The rows in the batches of steps start <= t < stop, int64 [steps, runs, |B|].

        The run dimension is 1 for one seed. The order within a batch is arbitrary.
        """
        drawn, rows = self._window(start, stop, runs)
        return per_run(drawn.long(), rows)

    def weights(self, start: int, stop: int, runs: Runs = None) -> Tensor | None:
        """Count of each row times n/|B|, float64 [steps, runs, n], or None for the full batch.

        They sum to n over the rows. The run dimension is 1 for one seed.
        """
        if self.batch_size is None or self.full_batch:
            return None
        drawn, rows = self._window(start, stop, runs)
        return per_run(row_weights(drawn.long(), self.n), rows)

    def _draw(self, seed: int, chunk: int) -> np.ndarray:
        size = self.n if self.batch_size is None else self.batch_size
        if self.full_batch:
            return np.broadcast_to(np.arange(self.n, dtype=np.int32), (CHUNK, self.n))
        if self.sampling == "reshuffle":
            return self._reshuffled(seed, chunk, size)
        rng = self._generator(seed, chunk)
        if self.sampling == "with_replacement":
            return rng.integers(self.n, size=(CHUNK, size)).astype(np.int32)
        # the indices of the `size` smallest of n i.i.d. uniforms are a uniformly random subset
        subset = rng.random((CHUNK, self.n)).argpartition(size - 1, axis=1)[:, :size]
        # the order that argpartition returns depends on the processor
        return np.sort(subset, axis=1).astype(np.int32)

    def _reshuffled(self, seed: int, chunk: int, size: int) -> np.ndarray:
        """The reads of one chunk, [CHUNK, size].

        The permutation of an epoch is drawn by the generator of the chunk in which the epoch
        begins, the last epoch of a chunk first. So the epoch that continues from an earlier chunk
        is that chunk's first draw, and its other permutations need not be drawn.
        """
        reads = CHUNK * size
        first_read, first_epoch = chunk * reads, -(-chunk * reads // self.n)
        next_epoch = -(-(chunk + 1) * reads // self.n)
        own = self._permutations(seed, chunk, next_epoch - first_epoch)
        parts = [*own[1:], *own[:1]]
        if first_epoch * self.n > first_read:
            first_epoch -= 1
            (before,) = self._permutations(seed, first_epoch * self.n // reads, 1)
            parts.insert(0, before)
        start = first_read - first_epoch * self.n
        return np.concatenate(parts)[start : start + reads].reshape(CHUNK, size)

    def _permutations(self, seed: int, chunk: int, count: int) -> np.ndarray:
        """The first draws of a chunk: uniform permutations of the rows, int32 [count, n]."""
        rows = np.tile(np.arange(self.n, dtype=np.int32), (count, 1))
        return self._generator(seed, chunk).permuted(rows, axis=1)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.batch_size is not None and not is_integer(self.batch_size, 1, self.n):
            yield f"batch_size = {self.batch_size!r} must be in [1, n] = [1, {self.n}] or null"
        if not is_one_of(self.sampling, SAMPLINGS):
            yield f"sampling = {self.sampling!r} must be one of {', '.join(SAMPLINGS)}"


def row_weights(batches: Tensor, n: int) -> Tensor:
    """How often each of n rows is in a batch, times n/|B|, float64 [steps, runs, n].

    >>> row_weights(torch.tensor([[[0, 2], [1, 1]]]), n=3).tolist()
    [[[1.5, 0.0, 1.5], [0.0, 3.0, 0.0]]]
    """
    weights = torch.zeros(*batches.shape[:2], n, dtype=torch.float64, device=batches.device)
    fraction = weights.new_tensor(n / batches.shape[-1])
    return weights.scatter_add_(-1, batches, fraction.expand(batches.shape))

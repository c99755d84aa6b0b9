"""Mini-batches: which rows each step of each run sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dln_momentum.data.checks import is_integer
from dln_momentum.data.streams import CHUNK, Runs, SeededStream, per_run


@dataclass(frozen=True)
class BatchStream(SeededStream):
    """The mini-batches B_t of stochastic heavy ball (Papazov et al., section 3), t = 0, 1, ...

    The batch of step t is a function of (seed, t) alone: any window of steps and any choice of runs
    gives what the whole would. In terms of the counts c_j of row j in B_t,

        grad L_B(theta) = X^T (c * (X theta - y)) / |B| = X^T (weights * (X theta - y)) / n.

    Args:
        n: number of rows.
        batch_size: |B| in [1, n]; None for all rows.
        replacement: True draws the rows of a batch independently, False draws distinct ones.
            Different steps are independent in both cases: there are no epochs.
        seeds: one integer that all runs share, or one per run.

    Raises:
        InputError: listing every argument out of its range.

    >>> batches = BatchStream(n=5, batch_size=2, replacement=False, seeds=[0, 0, 1])
    >>> batches.indices(1000, 1002).shape
    torch.Size([2, 3, 2])
    >>> batches.weights(1000, 1001, runs=slice(1, 3))
    tensor([[[2.5000, 0.0000, 0.0000, 2.5000, 0.0000],
             [0.0000, 0.0000, 2.5000, 0.0000, 2.5000]]], dtype=torch.float64)
    """

    n: int
    batch_size: int | None
    replacement: bool
    seeds: int | Sequence[int]
    purpose: ClassVar[int] = 1

    @property
    def full_batch(self) -> bool:
        """Whether every step sees each row once."""
        return self.batch_size is None or (self.batch_size == self.n and not self.replacement)

    def indices(self, start: int, stop: int, runs: Runs = None) -> Tensor:
        """The rows in the batches of steps start <= t < stop, int64 [steps, runs, |B|].

        The run dimension is 1 for seeds given as one integer. The order within a batch has
        no meaning.
        """
        drawn, rows = self._window(start, stop, runs)
        return per_run(drawn.long(), rows)

    def weights(self, start: int, stop: int, runs: Runs = None) -> Tensor | None:
        """Count of each row times n/|B|, float64 [steps, runs, n], or None for the full batch.

        They sum to n over the rows. The run dimension is 1 for seeds given as one integer.
        """
        if self.batch_size is None or self.full_batch:
            return None
        drawn, rows = self._window(start, stop, runs)
        counts = torch.zeros(*drawn.shape[:2], self.n, dtype=torch.float64)
        one = torch.tensor(self.n / self.batch_size, dtype=torch.float64)
        counts.scatter_add_(-1, drawn.long(), one.expand(drawn.shape))
        return per_run(counts, rows)

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        size = self.n if self.batch_size is None else self.batch_size
        if self.full_batch:
            return np.broadcast_to(np.arange(self.n, dtype=np.int32), (CHUNK, self.n))
        if self.replacement:
            return rng.integers(self.n, size=(CHUNK, size)).astype(np.int32)
        # the rows of the `size` smallest of n i.i.d. uniforms are a uniformly random subset
        subset = rng.random((CHUNK, self.n)).argpartition(size - 1, axis=1)[:, :size]
        # argpartition leaves an order that depends on the processor
        return np.sort(subset, axis=1).astype(np.int32)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.batch_size is not None and not is_integer(self.batch_size, 1, self.n):
            yield f"data.batch_size = {self.batch_size!r} must be in [1, n] = [1, {self.n}] or null"
        if not isinstance(self.replacement, bool):
            yield f"data.replacement = {self.replacement!r} must be true or false"

"""The ways in which stochastic runs read the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Sampling(NamedTuple):
    """How the runs read the rows."""

    batch_size: int
    replacement: bool
    label_noise: float

    @property
    def sampling(self) -> str:
        """What `BatchStream` calls it."""
        return "with_replacement" if self.replacement else "without_replacement"

    def name(self, n: int) -> str:
        """For tables and legends."""
        full = self.batch_size == n and not self.replacement
        how = "full batch" if full else f"b = {self.batch_size}"
        return (
            how
            + ", with replacement" * self.replacement
            + " + label noise" * bool(self.label_noise)
        )

    def variance(self, n: int) -> float:
        """Of the batch gradient, over that of one row's gradient."""
        b = self.batch_size
        return 1 / b if self.replacement else (n - b) / (b * (n - 1))


def samplings(batch_sizes: Sequence[int], label_noise: float) -> Iterator[Sampling]:
    """Every batch size with and without replacement, and two of them with label noise.

    Args:
        batch_sizes: increasing, the last is n.
        label_noise: its amplitude, at full batch and at the middle batch size.

    >>> [kind.name(4) for kind in samplings([1, 4], 0.5)]
    ['b = 4, with replacement', 'b = 1', 'full batch', 'full batch + label noise']
    """
    for replacement in (True, False):
        for size in batch_sizes:
            # one row drawn with replacement or without is the same
            if size > 1 or not replacement:
                yield Sampling(size, replacement, 0.0)
    middle = batch_sizes[len(batch_sizes) // 2]
    for size in dict.fromkeys((batch_sizes[-1], middle)):
        yield Sampling(size, False, label_noise)

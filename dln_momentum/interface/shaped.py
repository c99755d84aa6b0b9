"""What the results of runs and of flows have in common: their shape, and arrays of it by name."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
from torch import Tensor


def shaped(source: str, doc: str) -> Any:
    """A property of `Shaped`: a tensor of the result, by its dotted name, as an array."""
    read = attrgetter(source)
    return property(lambda self: self._shaped(read(self)), doc=doc)


class Shaped:
    """One run or many of shape S, () for one, with tensors that are flat over the runs."""

    shape: tuple[int, ...]
    status: Any

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the run dimensions in `to_dataset`."""
        if len(self.shape) == 1:
            return ("run",)
        return tuple(f"run_{axis}" for axis in range(len(self.shape)))

    @property
    def _endings(self) -> str:
        """How the one ended, or how many of them ended in which way."""
        if self.shape == ():
            return str(self.status)
        labels, counts = np.unique(np.atleast_1d(self.status), return_counts=True)
        return ", ".join(f"{n} {label}" for label, n in zip(labels, counts, strict=True))

    def _shaped(self, value: Tensor) -> Any:
        raise NotImplementedError

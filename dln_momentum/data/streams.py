"""Random numbers as a function of (seed, step), without a state.

A run must not depend on how its steps are divided into blocks, on which other runs are advanced
with it, or on whether it was resumed. So the draw of step t comes from a counter-based generator
(see `dln_momentum.seeding`) whose key is the seed and whose counter is the chunk of `CHUNK` steps
that contains t.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dln_momentum.arrays import is_integer
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.seeding import Purpose, is_seed, seeded_generator

CHUNK = 1024
"""Steps drawn from one generator. Another value changes every stream."""

KEPT_CHUNKS = 2
"""Chunks in memory: a window shorter than a chunk overlaps two at most."""

Runs = slice | Tensor | None
"""Which runs of a stream: a slice, an index tensor, or all of them."""


class SeededStream:
    """Integers for every step and run; the base of `BatchStream` and `LabelNoise`.

    A subclass is a frozen dataclass with the fields n and seeds. Its `purpose` makes its numbers
    independent of those of other streams with the same seed. `seeds` is one integer in [0, 2^64)
    that all runs share, or one per run; equal seeds give equal numbers, drawn once.
    """

    n: int
    seeds: int | Sequence[int]
    purpose: ClassVar[Purpose]

    def __post_init__(self) -> None:
        raise_if_any(self._problems())
        if not is_seed(self.seeds):
            object.__setattr__(self, "seeds", tuple(int(seed) for seed in self._seed_list()))

    @cached_property
    def _chunks(self) -> OrderedDict[tuple[int, bytes], Tensor]:
        return OrderedDict()

    def _problems(self) -> Iterator[str]:
        if not is_integer(self.n, 1):
            yield f"n = {self.n!r} must be an integer >= 1"
        bad = [seed for seed in self._seed_list() if not is_seed(seed)]
        if bad or not self._seed_list():
            yield f"seeds = {bad[:5]} must be integers in [0, 2^64), at least one"

    def _seed_list(self) -> list[Any]:
        return list(self.seeds) if isinstance(self.seeds, Sequence | np.ndarray) else [self.seeds]

    def _draw(self, seed: int, chunk: int) -> np.ndarray:
        """Integers [CHUNK, width] of one chunk for one seed, drawn from `_generator`."""
        raise NotImplementedError

    def _window(self, start: int, stop: int, runs: Runs) -> tuple[Tensor, Tensor]:
        """Numbers of the steps start <= t < stop, [steps, U, width], and the row of each run.

        U counts the different seeds among the runs; the rows are [runs] indices into them.
        """
        if not 0 <= start < stop:
            raise InputError([f"steps [{start}, {stop}) must satisfy 0 <= start < stop"])
        seeds = np.array(self._seed_list(), dtype=np.uint64)
        if runs is not None and len(seeds) > 1:
            try:
                seeds = seeds[runs if isinstance(runs, slice) else runs.cpu().numpy()]
            except IndexError as error:
                raise InputError([f"runs must be in [0, {len(seeds)}): {error}"]) from error
        unique, rows = np.unique(seeds, return_inverse=True)
        parts = []
        for chunk in range(start // CHUNK, -(-stop // CHUNK)):
            first = chunk * CHUNK
            parts.append(self._chunk(chunk, unique)[max(start - first, 0) : stop - first])
        return torch.cat(parts), torch.from_numpy(rows)

    def _chunk(self, chunk: int, seeds: np.ndarray) -> Tensor:
        key = (chunk, seeds.tobytes())
        if key not in self._chunks:
            drawn = [self._draw(int(seed), chunk) for seed in seeds]
            self._chunks[key] = torch.from_numpy(np.stack(drawn, axis=1))
        self._chunks.move_to_end(key)
        while len(self._chunks) > KEPT_CHUNKS:
            self._chunks.popitem(last=False)
        return self._chunks[key]

    def _generator(self, seed: int, chunk: int) -> np.random.Generator:
        return seeded_generator(self.purpose, seed, chunk)


def per_run(values: Tensor, rows: Tensor) -> Tensor:
    """Values [steps, U, ...] of U seeds as values [steps, runs, ...]; one seed is not copied."""
    if values.shape[1] == 1:
        return values.expand(-1, len(rows), *values.shape[2:])
    return values.index_select(1, rows)

"""Which kernel advances the tiles, by a measured rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dln_momentum.engine import torch_kernel
from dln_momentum.engine.tile import Tile
from dln_momentum.problem import Problem

Kernel = Callable[[Tile, int, Tensor | None, Tensor | None], None]


@dataclass(frozen=True)
class Backend:
    """A kernel and the tile it likes."""

    name: str
    advance: Kernel
    tile_elements: int
    """R_t d that its working set is fastest at"""
    min_tile_runs: int = 128
    """runs that amortise reading X once it is larger than the cache"""

    def tile_runs(self, n: int, d: int) -> int:
        """Runs to a tile for a problem of this size."""
        return max(self.tile_elements // d, self.min_tile_runs if n * d > 2**17 else 1)


TORCH = Backend("torch", torch_kernel.advance, tile_elements=65_536)


def choose_backend(name: str, problem: Problem, runs: int) -> Backend:
    """The backend of that name; ``auto`` decides by device and size."""
    return TORCH

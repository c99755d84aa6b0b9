"""How the engine advances its runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dln_momentum.errors import raise_if_any

BACKENDS = ("auto", "torch", "numba")
PATH_SUMS = ("telescoped", "direct", "gradient_sum")


@dataclass(frozen=True)
class EngineOptions:
    """How runs are advanced; none of it changes their mathematics."""

    backend: str = "auto"
    """``numba`` (compiled, on a CPU), ``torch`` (any device), or ``auto`` for the faster one"""
    path_sums: str = "telescoped"
    """how S_+- is summed: ``telescoped``, from the iterates with one division a step (tests the
    theorem, absolute error about 1e-12); ``direct``, from the iterates term by term (tests the
    theorem, keeps the relative accuracy of a tiny S); ``gradient_sum``, from the sum of the
    gradients (an identity of the update: cheapest, and no test of the theorem)"""
    tol: float = 1e-24
    """a run has converged at the first check (every 10 steps) that finds its training loss at or
    below it; -inf for never"""
    divergence_bound: float = 1e10
    """a run has diverged at the first check that finds its loss above this many times its first
    loss, or not finite"""
    tile_runs: int | None = None
    """runs to a tile; None for the measured rule"""
    num_workers: int = 1
    """threads that advance tiles, each on a core of its own"""

    def __post_init__(self) -> None:
        raise_if_any(
            f"{key} = {value!r} must be {allowed}"
            for key, value, ok, allowed in (
                (
                    "backend",
                    self.backend,
                    self.backend in BACKENDS,
                    f"one of {', '.join(BACKENDS)}",
                ),
                (
                    "path_sums",
                    self.path_sums,
                    self.path_sums in PATH_SUMS,
                    f"one of {', '.join(PATH_SUMS)}",
                ),
                (
                    "tol",
                    self.tol,
                    0 <= self.tol < inf or self.tol == -inf,
                    "finite and >= 0, or -inf",
                ),
                ("divergence_bound", self.divergence_bound, self.divergence_bound > 1, "> 1"),
                (
                    "tile_runs",
                    self.tile_runs,
                    self.tile_runs is None or self.tile_runs >= 1,
                    ">= 1 or null",
                ),
                ("num_workers", self.num_workers, self.num_workers >= 1, ">= 1"),
            )
            if not ok
        )

"""How the engine advances its runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dln_momentum.errors import refuse

BACKENDS = ("auto", "torch", "numba")
PATH_SUMS = ("n_space", "direct")


@dataclass(frozen=True)
class EngineOptions:
    """How runs are advanced; none of it changes their mathematics."""

    backend: str = "auto"
    """``numba`` (compiled, on a CPU), ``torch`` (any device), or ``auto`` for the faster one"""
    path_sums: str = "n_space"
    """``n_space``: S_+- from the gradient sum (an identity: cheap, and no test of the theorem);
    ``direct``: S_+- by definition at every step"""
    tol: float = 1e-24
    """a run whose training loss is at or below it at a block's end has converged; -inf for never"""
    divergence_bound: float = 1e10
    """a run whose loss exceeds this many times its first loss has diverged"""
    tile_runs: int | None = None
    """runs to a tile; None for the measured rule"""
    num_workers: int = 1
    """threads that advance tiles, each on a core of its own"""

    def __post_init__(self) -> None:
        refuse(
            f"engine.{key} = {value!r} must be {allowed}"
            for key, value, ok, allowed in (
                ("backend", self.backend, self.backend in BACKENDS, f"one of {BACKENDS}"),
                ("path_sums", self.path_sums, self.path_sums in PATH_SUMS, f"one of {PATH_SUMS}"),
                ("tol", self.tol, self.tol >= 0 or self.tol == -inf, ">= 0, or -inf for never"),
                ("divergence_bound", self.divergence_bound, self.divergence_bound > 1, "> 1"),
                ("tile_runs", self.tile_runs, (self.tile_runs or 1) >= 1, ">= 1 or null"),
                ("num_workers", self.num_workers, self.num_workers >= 1, ">= 1"),
            )
            if not ok
        )

"""Which kernel advances the runs.

Compiled code (numba) was the faster one on a CPU at every size and number of runs measured, from
one run at (n, d) = (20, 30) to hundreds at (1000, 10000): see benchmarks/README.md. On a GPU the
kernel of `dln_momentum.engine.gpu` is, for what fits into it; torch advances the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.errors import InputError
from dln_momentum.problem import Problem

Kernel = Callable[[ScaledProblem, State, Tensor, Chunk], None]
"""``advance(scaled, state, runs, chunk)``: advance ``runs`` [R_t], which are all running and at the
same step, by the steps of the chunk, in place. At every multiple of `CHECK_EVERY` it checks each
loss before the step; a run that has converged or diverged is left as it is there, with its status,
its steps and its loss. The status at the end of the chunk is not judged."""

TILE_ELEMENTS, TILE_RUNS = 2**16, 128
"""Coordinates of a tile, over all of its runs, and the fewest runs whatever their size. Measured:
tiles of half to twice that are within a tenth of the best, for either kernel. Smaller ones pay more
for a tile's beginning, larger ones leave the cache; few large networks would read X too often."""
SHARED_FROM, ROWS = 2**23, 16
"""A millisecond of one core in compiled code, half of what it costs to begin and end a thread; what
a step does beside its products takes as long as so many more rows of X."""
GPU_ELEMENTS = 2**27
"""A gigabyte of w: on a GPU a tile is all runs, as long as its workspace fits."""


@dataclass(frozen=True)
class Backend:
    """A kernel and its preferred tile size."""

    name: str
    why: str
    """why it was chosen"""
    advance: Kernel
    multiple: int = 1
    """a tile of a multiple of this many runs has no padding lanes"""
    elements: int = TILE_ELEMENTS
    """coordinates of a tile, over all of its runs"""
    threads_from: int = 0
    """networks of fewer coordinates are slower on two threads than on one"""
    shared_from: int = 0
    """shorter blocks are, too: (n + `ROWS`) d over runs and steps, at least, for several threads"""

    def tile_runs(self, d: int) -> int:
        """The largest tile for networks of d coordinates."""
        most = max(self.elements // d, TILE_RUNS)
        return most - most % self.multiple


def choose_backend(
    name: str, problem: Problem, *, plain: bool = True, shared: bool = True
) -> Backend:
    """The backend of that name; ``auto`` decides.

    Args:
        name: one of `dln_momentum.engine.options.BACKENDS`.
        problem: the data, for its device.
        plain: whether the method is the poster's, which has a kernel of its own.
        shared: whether all runs of each tile have one X.
    """
    on_cpu = problem.X.device.type == "cpu"
    if name == "numba" and not on_cpu:
        raise InputError("engine.backend = 'numba' runs on a CPU only; must be auto, torch or cuda")
    if name == "cuda" and (reason := _why_not_cuda(problem, plain, shared)):
        allowed = "auto, torch or numba" if on_cpu else "auto or torch"
        raise InputError(f"engine.backend = 'cuda' {reason}; must be {allowed}")
    if name == "numba" and not compiles():
        raise InputError(
            "engine.backend = 'numba' needs numba's compiler, which NUMBA_DISABLE_JIT turns off; "
            "must be auto or torch"
        )
    if name != "auto":
        return _load(name, "asked for", on_cpu, plain)
    if not on_cpu:
        reason = _why_not_cuda(problem, plain, shared)
        if reason:
            return _load("torch", f"runs on this device; cuda {reason}", on_cpu, plain)
        return _load("cuda", "fastest on a GPU", on_cpu, plain)
    if not compiles():
        return _load("torch", "NUMBA_DISABLE_JIT turns numba's compiler off", on_cpu, plain)
    return _load("numba", "fastest on a CPU", on_cpu, plain)


def _why_not_cuda(problem: Problem, plain: bool, shared: bool) -> str | None:
    """Why the kernel of a GPU cannot advance these runs; None if it can."""
    if problem.X.device.type != "cuda":
        return f"runs on a CUDA device only, and the data are on {problem.X.device}"
    if not plain:
        return "advances heavy ball at constant rates and depth 2 with the squared loss only"
    if not shared:
        return "needs an X that all runs share"
    from dln_momentum.engine.gpu import kernel

    return kernel.why_not(problem.n, problem.d, problem.X.device)


def compiles() -> bool:
    """Whether numba compiles; where it does not, the kernels' LLVM instructions cannot be run."""
    import numba

    # numba sets the attributes of this module when it is imported
    return not vars(numba.config)["DISABLE_JIT"]  # pyright: ignore[reportPrivateImportUsage]


def _load(name: str, why: str, on_cpu: bool, plain: bool) -> Backend:
    # numba takes a second to import, which a run on a GPU need not spend
    if name == "numba":
        from dln_momentum.engine.cpu import family_kernel, kernel, registers

        advance = kernel.advance if plain else family_kernel.advance
        why += f"; register block {registers.CHOICE}"
        return Backend(name, why, advance, kernel.LANES, shared_from=SHARED_FROM)
    if name == "cuda":
        from dln_momentum.engine.gpu import kernel

        return Backend(name, why, kernel.advance, elements=GPU_ELEMENTS)
    from dln_momentum.engine import torch_family, torch_kernel

    elements = TILE_ELEMENTS if on_cpu else GPU_ELEMENTS
    # short operations spend their time under the interpreter's lock
    advance = torch_kernel.advance if plain else torch_family.advance
    return Backend(name, why, advance, elements=elements, threads_from=100)

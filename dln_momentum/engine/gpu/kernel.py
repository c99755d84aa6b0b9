"""One block of steps on a GPU, by a kernel that keeps the runs in registers from step to step.

advance.cu says what it does. It is compiled for the size of a problem when that is first needed, by
the compiler that torch brings along, in about a second. X has to fit into the shared memory of a
multiprocessor, twice, and a run into the registers of at most 12 warps (n <= 64, d <= 480); what is
larger, data of its own for each run, and every other method, the torch kernels advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dln_momentum.data.sampling import row_weights
from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import TELESCOPED, State
from dln_momentum.engine.status import divergence_ceiling

TILE, WARP = 8, 32
"""Rows and columns of a tile of the matrix units; lanes of a warp."""
COLUMN_TILES, ROW_TILES = 5, 8
"""Most column tiles of a warp, whose lanes keep 7 numbers of 2 coordinates of each in registers,
and most row tiles, of which they keep 2 residuals each."""
WARPS, PARTS = 12, 12
"""Warps that share the registers of a multiprocessor, and most that share a run."""
NEWEST = (8, 0)
"""Compute capability from which on the matrix units multiply float64."""
LAUNCH_STEPS = 2**20
"""Most steps of a launch: it counts them in 32 bits."""
WEIGHT_BYTES = 2**27
"""What the batch weights of a launch may take, which are larger than the batches of a chunk."""


@dataclass(frozen=True)
class Layout:
    """How the runs of a problem are dealt out to the warps of a block."""

    n: int
    d: int
    parts: int
    """warps that advance 8 runs together"""
    groups: int
    """of so many warps in a block, at most"""
    blocks: int
    """that share the registers of a multiprocessor, at least"""

    @property
    def threads(self) -> int:
        """Of a block, at most."""
        return WARP * self.parts * self.groups

    def shared_bytes(self, groups: int) -> int:
        """A in two layouts; of each group the target and, twice, the residual of each warp."""
        own = groups * (1 + 2 * self.parts) * tiles(self.n)
        return 16 * WARP * (2 * tiles(self.n) * tiles(self.d) + own)


def tiles(size: int) -> int:
    """Tiles that so many rows or columns take."""
    return -(-size // TILE)


def layout_of(n: int, d: int, shared_bytes: int) -> Layout | None:
    """How runs of this size are dealt out; None where they do not fit.

    Of the layouts measured on an H100, those with the fewest warps to a run were the fastest: what
    the warps of a group exchange grows with the square of their number.

    >>> layout_of(20, 30, shared_bytes=2**17)
    Layout(n=20, d=30, parts=1, groups=4, blocks=3)
    >>> layout_of(200, 1000, shared_bytes=2**17) is None
    True
    """
    parts = -(-tiles(d) // COLUMN_TILES)
    if parts > PARTS or tiles(n) > ROW_TILES:
        return None
    most = 4 if parts == 1 else WARPS // parts
    for groups in range(most, 0, -1):
        found = Layout(n, d, parts, groups, WARPS // (parts * groups) if parts == 1 else 1)
        if found.shared_bytes(groups) <= shared_bytes:
            return found
    return None


def why_not(n: int, d: int, device: torch.device) -> str | None:
    """Why runs of this size cannot be advanced on a device; None if they can."""
    if _compiler() is None:
        return "needs torch.cuda's run-time compiler, which this torch has not"
    if torch.cuda.get_device_capability(device) < NEWEST:
        return f"needs a GPU of compute capability {NEWEST[0]}.{NEWEST[1]}"
    layout = _layout_on(n, d, device)
    if layout is None:
        largest = TILE * ROW_TILES, TILE * COLUMN_TILES * PARTS
        return (
            f"needs n <= {largest[0]}, d <= {largest[1]} and an X that fits twice into the shared "
            f"memory of a multiprocessor, not one of {n} x {d}"
        )
    return _why_not_compiled(layout, device)


@cache
def _why_not_compiled(layout: Layout, device: torch.device) -> str | None:
    try:
        _compiled(layout, TELESCOPED, False, False, device)
    # the last two of a compiler of another interface
    except (RuntimeError, OSError, ImportError, AttributeError, TypeError) as error:
        return f"could not be compiled: {error}"
    return None


def advance(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    """Advance ``runs`` of the state by the steps of a chunk, in place; see `backends.Kernel`."""
    n, most = scaled.target.shape[-1], LAUNCH_STEPS
    if chunk.batches is not None:
        most = max(1, min(most, WEIGHT_BYTES // (8 * n * chunk.batches.shape[1])))
    chunk = chunk.to(runs.device)
    drawn = [None if t is None else _once(t) for t in (chunk.noise, chunk.batches)]
    for first in range(0, max(1, chunk.steps), most):
        steps = min(most, chunk.steps - first)
        noise, batches = (None if t is None else t[first : first + steps] for t in drawn)
        weights = None if batches is None else row_weights(batches, n)
        _launch(scaled, state, runs, chunk.start + first, steps, (noise, weights))


def _launch(
    scaled: ScaledProblem,
    state: State,
    runs: Tensor,
    start: int,
    steps: int,
    drawn: tuple[Tensor | None, Tensor | None],
) -> None:
    """Take some steps from a start with noise and weights [steps, R_t or 1, n].

    Runs that have ended are left alone, as those of an earlier launch.
    """
    device = runs.device
    layout = _layout_on(*scaled.X.shape, device)
    assert layout is not None
    kernel = _compiled(layout, state.summing, *(t is not None for t in drawn), device)
    loss_scale = 2 * scaled.gamma**2
    ceiling = divergence_ceiling(state.loss_start, scaled.tol, scaled.divergence_bound)
    tol, first = state.loss.new_tensor([scaled.tol]), runs.new_tensor([start])
    tensors = [
        scaled.A, scaled.target, scaled.beta, loss_scale, scaled.noise_scale, ceiling, tol, first,
        runs.contiguous(), *(None if t is None else t.contiguous() for t in drawn),
        state.w, state.p, state.path_sums, state.increment_products,
        state.residual_sum, state.sign_changes, state.loss, state.status, state.steps,
    ]  # fmt: skip
    # what is not there is not read
    found = [state.loss if tensor is None else tensor for tensor in tensors]
    apart = [0 if t is None or t.shape[1] == 1 else 1 for t in drawn]
    # few runs are spread over all multiprocessors
    eights = math.ceil(len(runs) / TILE)
    everywhere = torch.cuda.get_device_properties(device).multi_processor_count
    groups = min(layout.groups, math.ceil(eights / everywhere))
    with torch.cuda.device(device):
        kernel(
            grid=(math.ceil(eights / groups), 1, 1),
            block=(WARP * layout.parts * groups, 1, 1),
            args=[*found, len(state.loss), len(runs), steps, *apart],
            shared_mem=layout.shared_bytes(groups),
        )


def _once(drawn: Tensor) -> Tensor:
    """What a stride of 0 repeats for every run, once."""
    return drawn[:, :1] if drawn.stride(1) == 0 else drawn


@cache
def _layout_on(n: int, d: int, device: torch.device) -> Layout | None:
    found = torch.cuda.get_device_properties(device)
    return layout_of(n, d, getattr(found, "shared_memory_per_block_optin", 48 * 2**10))


@cache
def _compiled(
    layout: Layout, summing: int, noise: bool, weights: bool, device: torch.device
) -> Callable[..., None]:
    """The kernel for a layout, and for what is summed and drawn."""
    macros = {
        "N": layout.n,
        "D": layout.d,
        "PARTS": layout.parts,
        "THREADS": layout.threads,
        "BLOCKS": layout.blocks,
        "SUMMING": summing,
        "NOISE": int(noise),
        "WEIGHTS": int(weights),
    }
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    source = Path(__file__).with_name("advance.cu").read_text(encoding="utf-8")
    with torch.cuda.device(device), _without_a_toolkit():
        kernel = _compiler()(defined + source, "advance")
        kernel.set_shared_memory_config(layout.shared_bytes(layout.groups))
    return kernel


@contextmanager
def _without_a_toolkit() -> Iterator[None]:
    """Compile without a CUDA toolkit, for whose headers torch asks and of which none is read."""
    from torch.utils import cpp_extension

    kept = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = kept or str(Path(torch.__file__).parent)
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = kept


def _compiler() -> Any:
    """torch's compiler of a kernel's source; None in versions without it."""
    found = getattr(torch.cuda, "compile_kernel", None)
    return found or getattr(torch.cuda, "_compile_kernel", None)

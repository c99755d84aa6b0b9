"""One block of steps in compiled code, on a CPU: the faster backend at every size measured.

Full SIMD blocks of runs on shared data go side by side (`simd_block`); a remainder of few runs, and
runs with data of their own, go one after the other (`one_run`). Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from dln_momentum.engine.cpu.carried import (
    Carried,
    Drawn,
    Endings,
    Panels,
)
from dln_momentum.engine.cpu.compiled import (
    PLACES,
    apart,
    zeros_in_large_pages,
    zeros_in_large_pages_at,
)
from dln_momentum.engine.cpu.one_run import advance_one_by_one, fill_spans, filled_up
from dln_momentum.engine.cpu.panels import PANEL_COLUMNS, PANEL_ROWS, blocks_together
from dln_momentum.engine.cpu.registers import LANES
from dln_momentum.engine.cpu.simd_block import advance_simd_blocks
from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.engine.status import divergence_ceiling

FEW = LANES // 4
"""Up to so many runs are faster one by one than as a block with padding lanes."""

_NO_BATCHES, _NO_NOISE, _NO_SCALE = np.empty((0, 1, 1), np.int64), np.empty((0, 1, 1)), np.empty(0)


def advance(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    """Advance ``runs`` of the state by the steps of a chunk, in place; see `backends.Kernel`."""
    side_by_side = simd_blocks(scaled, len(runs))
    if side_by_side > 0:
        _advance_simd_blocks(scaled, state, runs[:side_by_side], chunk.part(slice(side_by_side)))
    if side_by_side < len(runs):
        part = slice(side_by_side, None)
        _advance_one_by_one(scaled, state, runs[part], chunk.part(part))


def simd_blocks(scaled: ScaledProblem, runs: int) -> int:
    """How many of so many runs, the first ones, go in SIMD blocks."""
    left = runs % LANES
    return runs - (left if left <= FEW else 0) if scaled.shared else 0


def slots_of(runs: int) -> Tensor:
    """Which run each slot of the blocks has: the padding lanes of the last repeat the last run."""
    return torch.arange(-(-runs // LANES) * LANES).clamp_max_(runs - 1)


def _advance_one_by_one(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    advance_one_by_one(
        *spans_of(scaled),
        scaled.matrix.numpy(),
        scaled.target.numpy(),
        scaled.beta.numpy(),
        _carried(state),
        endings_of(scaled, state),
        drawn_by(scaled, chunk, runs),
        state.summing,
        runs.numpy(),
        chunk.start,
        chunk.steps,
    )


def _advance_simd_blocks(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    slots = slots_of(len(runs))
    run_of_slot = runs[slots]
    advance_simd_blocks(
        panels_of(scaled),
        blocks_together(scaled.X.shape[-2], scaled.X.shape[-1]),
        pack(scaled.target, run_of_slot),
        scaled.beta[run_of_slot].numpy(),
        Carried(*pack_all(_tensors(state), run_of_slot)),
        _carried(state),
        endings_of(scaled, state),
        drawn_by(scaled, chunk.part(slots), run_of_slot),
        state.summing,
        runs.numpy(),
        chunk.start,
        chunk.steps,
    )


def spans_of(scaled: ScaledProblem) -> tuple[np.ndarray, ...]:
    """A, one matrix or one for each run, and how `one_run` reads it."""
    if "spans" not in scaled.layouts:
        # of one X no copies but these two are made: in its own layout its shape alone is read
        X, root = scaled.to_lay_out if scaled.shared else (scaled.A, 1.0)
        A = X.reshape(-1, *X.shape[-2:]).numpy()
        _, n, d = A.shape
        by_column = zeros_in_large_pages(filled_up(d) * n)
        by_row = zeros_in_large_pages(filled_up(n) * d)
        fill_spans(A[0], root, by_column, False)
        fill_spans(A[0], root, by_row, True)
        scaled.layouts["spans"] = (A, by_column, by_row)
    A, by_column, by_row = scaled.layouts["spans"]
    # with a matrix for each run these are room to lay it out in, which threads must not share
    return (A, by_column, by_row) if len(A) == 1 else (A, by_column.copy(), by_row.copy())


def panels_of(scaled: ScaledProblem) -> Panels:
    """How `simd_block` reads a shared A: in panels of nearly equal size."""
    if "panels" not in scaled.layouts:
        X, root = scaled.to_lay_out
        rows, columns = (
            np.linspace(0, size, -(-size // most) + 1).astype(np.int64)
            for size, most in zip(X.shape, (PANEL_ROWS, PANEL_COLUMNS), strict=True)
        )
        laid_out, filled = np.empty(X.numel()), 0
        for slab in np.split(X.numpy(), columns[1:-1], axis=1):
            here = laid_out[filled : filled + slab.size].reshape(slab.shape)
            np.divide(slab, root, out=here)
            filled += slab.size
        widest = int(np.diff(columns).max()) * LANES
        scaled.layouts["panels"] = Panels(laid_out, columns, rows, widest)
    return scaled.layouts["panels"]


def _tensors(state: State) -> tuple[Tensor | None, ...]:
    """The fields of `Carried`, in their order."""
    return state.w, state.p, state.residual_sum, state.path_sums, state.increment_products


def _carried(state: State) -> Carried:
    axes = (3, 3, 2, 3, 2)
    pairs = zip(_tensors(state), axes, strict=True)
    return Carried(*(np.empty((0,) * k) if t is None else t.numpy() for t, k in pairs))


def endings_of(scaled: ScaledProblem, state: State) -> Endings:
    """When each run has ended, and where to write it."""
    ceiling = divergence_ceiling(state.loss_start, scaled.tol, scaled.divergence_bound)
    return Endings(
        scaled.tol,
        ceiling.numpy(),
        scaled.gamma.numpy(),
        state.loss.numpy(),
        state.status.numpy(),
        state.steps.numpy(),
        state.sign_changes.numpy(),
    )


def drawn_by(scaled: ScaledProblem, chunk: Chunk, runs: Tensor) -> Drawn:
    """Batches and noise of the runs, and what the noise is multiplied by."""
    return Drawn(
        _NO_BATCHES if chunk.batches is None else chunk.batches.contiguous().numpy(),
        _NO_NOISE if chunk.noise is None else chunk.noise.contiguous().numpy(),
        _NO_SCALE if chunk.noise is None else scaled.noise_scale[runs].numpy(),
    )


def pack_all(tensors: Iterable[Tensor | None], run_of_slot: Tensor) -> Iterator[np.ndarray]:
    """`pack` of each, w_+, w_-, p_+ and so on at places of a page one after the other."""
    place = 0
    for tensor in tensors:
        yield pack(tensor, run_of_slot, place % PLACES)
        place += 0 if tensor is None or tensor.ndim < 3 else 2


def pack(tensor: Tensor | None, run_of_slot: Tensor, place: int = 0) -> np.ndarray:
    """Rows [R, k] of the runs of all slots as SIMD blocks [S, k, LANES], flat, from ``place`` on.

    Of rows [2, R, k] the second half begins `apart` from the first.
    """
    if tensor is None:
        return np.empty(0)
    blocks = tensor.index_select(-2, run_of_slot).unflatten(-2, (-1, LANES)).mT
    row, block = LANES, LANES * tensor.shape[-1]
    size = block * (len(run_of_slot) // LANES)
    halves = () if tensor.ndim < 3 else (apart(size),)
    packed = zeros_in_large_pages_at(size + sum(halves), place)
    torch.from_numpy(packed).as_strided(blocks.shape, (*halves, block, row, 1)).copy_(blocks)
    return packed

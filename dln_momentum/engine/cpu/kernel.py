"""One block of steps in compiled code, on a CPU: the faster backend at every size measured.

Full strips of runs on shared data go side by side (`strips`); what is left of a strip if it is
little, and runs with data of their own, go one after the other (`single`). Both give the same bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dln_momentum.engine.cpu.carried import (
    DIRECT,
    NOT_SUMMED,
    TELESCOPED,
    Carried,
    Drawn,
    Endings,
)
from dln_momentum.engine.cpu.compiled import zeros
from dln_momentum.engine.cpu.one_run import advance_singly, fill_spans, filled_up
from dln_momentum.engine.cpu.products import STRIP
from dln_momentum.engine.cpu.simd_block import advance_strips
from dln_momentum.engine.draws import Piece
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.engine.status import divergence_ceiling

BLOCK_COLUMNS, BLOCK_ROWS = 100, 256
"""Largest block of X that strips are multiplied by at once: 200 kB, well inside a level-2 cache."""

GROUP = 4
"""Strips side by side: more of them reuse X in the cache, and crowd it."""

FEW = STRIP // 4
"""Up to so many runs are faster one by one than as a strip with empty places."""

_NO_BATCHES, _NO_NOISE, _NO_SCALE = np.empty((0, 1, 1), np.int64), np.empty((0, 1, 1)), np.empty(0)


def advance(scaled: ScaledProblem, state: State, runs: Tensor, piece: Piece) -> None:
    """Advance ``runs`` of the state by the steps of a piece, in place; see `backends.Kernel`."""
    left = len(runs) % STRIP
    side_by_side = len(runs) - (left if left <= FEW else 0) if scaled.shared else 0
    if side_by_side > 0:
        _advance_strips(scaled, state, runs[:side_by_side], piece.part(slice(side_by_side)))
    if side_by_side < len(runs):
        part = slice(side_by_side, None)
        _advance_singly(scaled, state, runs[part], piece.part(part))


def _advance_singly(scaled: ScaledProblem, state: State, runs: Tensor, piece: Piece) -> None:
    advance_singly(
        *_spans(scaled),
        scaled.matrix.numpy(),
        scaled.target.numpy(),
        scaled.beta.numpy(),
        _carried(state),
        _endings(scaled, state),
        _drawn(scaled, piece, runs),
        _summing(state),
        runs.numpy(),
        piece.start,
        piece.steps,
    )


def _advance_strips(scaled: ScaledProblem, state: State, runs: Tensor, piece: Piece) -> None:
    # the places that are left over in the last strip repeat the last run
    places = torch.arange(-(-len(runs) // STRIP) * STRIP).clamp_max_(len(runs) - 1)
    lanes = runs[places]
    advance_strips(
        *_blocks(scaled),
        GROUP,
        _pack(scaled.target, lanes),
        scaled.beta[lanes].numpy(),
        Carried(*(_pack(tensor, lanes) for tensor in _tensors(state))),
        _carried(state),
        _endings(scaled, state),
        _drawn(scaled, piece.part(places), lanes),
        _summing(state),
        runs.numpy(),
        piece.start,
        piece.steps,
    )


def _spans(scaled: ScaledProblem) -> tuple[np.ndarray, ...]:
    """A, one matrix or one for each run, and how `single` wants it."""
    if "spans" not in scaled.layouts:
        A = scaled.A.reshape(-1, *scaled.A.shape[-2:]).numpy()
        _, n, d = A.shape
        by_column, by_row = zeros(filled_up(d) * n), zeros(filled_up(n) * d)
        fill_spans(A[0], by_column, False)
        fill_spans(A[0], by_row, True)
        scaled.layouts["spans"] = (A, by_column, by_row)
    A, by_column, by_row = scaled.layouts["spans"]
    # with a matrix for each run these are room to lay it out in, which threads must not share
    return (A, by_column, by_row) if len(A) == 1 else (A, by_column.copy(), by_row.copy())


def _blocks(scaled: ScaledProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """How `strips` wants a shared A: in balanced blocks, where they start, and their width."""
    if "blocks" not in scaled.layouts:
        A = scaled.A.numpy()
        rows, columns = (
            np.linspace(0, size, -(-size // most) + 1).astype(np.int64)
            for size, most in zip(A.shape, (BLOCK_ROWS, BLOCK_COLUMNS), strict=True)
        )
        slabs = [slab.ravel() for slab in np.split(A, columns[1:-1], axis=1)]
        widest = int(np.diff(columns).max()) * STRIP
        scaled.layouts["blocks"] = (np.concatenate(slabs), columns, rows, widest)
    return scaled.layouts["blocks"]


def _tensors(state: State) -> tuple[Tensor | None, ...]:
    """The fields of `Carried`, in their order."""
    return state.w, state.p, state.residual_sum, state.path_sums, state.increment_products


def _carried(state: State) -> Carried:
    axes = (3, 3, 2, 3, 2)
    pairs = zip(_tensors(state), axes, strict=True)
    return Carried(*(np.empty((0,) * k) if t is None else t.numpy() for t, k in pairs))


def _endings(scaled: ScaledProblem, state: State) -> Endings:
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


def _summing(state: State) -> int:
    if state.path_sums is None:
        return NOT_SUMMED
    return DIRECT if state.summed_until is None else TELESCOPED


def _drawn(scaled: ScaledProblem, piece: Piece, runs: Tensor) -> Drawn:
    """Batches and noise of the runs, and what the noise is multiplied by."""
    return Drawn(
        _NO_BATCHES if piece.batches is None else piece.batches.contiguous().numpy(),
        _NO_NOISE if piece.noise is None else piece.noise.contiguous().numpy(),
        _NO_SCALE if piece.noise is None else scaled.noise_scale[runs].numpy(),
    )


def _pack(tensor: Tensor | None, lanes: Tensor) -> np.ndarray:
    """Rows [..., R, k] of the runs in all places as strips [..., S, k, STRIP], flat."""
    if tensor is None:
        return np.empty(0)
    strips = tensor.index_select(-2, lanes).unflatten(-2, (-1, STRIP))
    return strips.mT.contiguous().view(-1).numpy()

"""One block of steps in compiled code, on a CPU: the faster backend at every size measured.

Full strips of runs on shared data go side by side (`strips`); what is left of a strip if it is
little, and runs with data of their own, go one after the other (`single`). Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dln_momentum.engine.draws import Piece
from dln_momentum.engine.products import STRIP
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.single import advance_singly
from dln_momentum.engine.state import State
from dln_momentum.engine.strips import advance_strips

GROUP = 4
"""Strips side by side: more of them reuse X in the cache, and crowd it."""

FEW = STRIP // 4
"""Up to so many runs are faster one by one than as a strip with empty places."""


def advance(scaled: ScaledProblem, state: State, runs: Tensor, piece: Piece) -> None:
    """Advance ``runs`` of the state by the steps of a piece, in place; see `backends.Kernel`."""
    left = len(runs) % STRIP
    side_by_side = len(runs) - (left if left <= FEW else 0) if scaled.shared else 0
    places = torch.arange(len(runs))
    if side_by_side > 0:
        _advance_strips(scaled, state, runs, places[:side_by_side], piece)
    if side_by_side < len(runs):
        _advance_singly(scaled, state, runs, places[side_by_side:], piece)


def _advance_singly(
    scaled: ScaledProblem, state: State, runs: Tensor, places: Tensor, piece: Piece
) -> None:
    carried = (state.w, state.p, state.residual_sum, state.path_sums, state.increment_products)
    advance_singly(
        (scaled.A.unsqueeze(0) if scaled.shared else scaled.A).numpy(),
        scaled.target.numpy(),
        scaled.beta.numpy(),
        *(_flat(tensor) for tensor in carried),
        *_by_run(scaled, state, runs[places]),
        *_drawn(scaled, piece, runs, places),
        int(state.steps[runs[0]]),
        piece.steps,
    )


def _advance_strips(
    scaled: ScaledProblem, state: State, runs: Tensor, places: Tensor, piece: Piece
) -> None:
    # the places that are left over in the last strip repeat the last run
    padded = torch.cat([places, places[-1:].expand(-len(places) % STRIP)])
    lanes = runs[padded]
    carried = (state.w, state.p, state.residual_sum, state.path_sums, state.increment_products)
    packed = [_pack(tensor, lanes) for tensor in carried]
    advance_strips(
        *scaled.blocks,
        int(np.diff(scaled.blocks.columns).max()) * STRIP,
        GROUP,
        _pack(scaled.target, lanes),
        scaled.beta[lanes].numpy(),
        *packed,
        *_by_run(scaled, state, runs[places]),
        *_drawn(scaled, piece, runs, padded),
        int(state.steps[runs[0]]),
        piece.steps,
    )
    for tensor, values in zip(carried, packed, strict=True):
        _unpack(values, tensor, runs[places])


def _by_run(scaled: ScaledProblem, state: State, runs: Tensor) -> Iterator[np.ndarray]:
    """The runs, and what both kernels read and write at their indices."""
    yield runs.numpy()
    for tensor in (scaled.tolerance, scaled.gamma):
        yield tensor.numpy()
    for tensor in (state.loss, state.sign_changes, state.reached_tol):
        yield tensor.numpy()


def _drawn(
    scaled: ScaledProblem, piece: Piece, runs: Tensor, places: Tensor
) -> Iterator[np.ndarray]:
    """Batches and noise of the runs in these places, and what the noise is multiplied by."""
    for drawn, dtype in ((piece.batches, torch.int64), (piece.noise, torch.float64)):
        if drawn is None:
            yield torch.empty(0, 1, 1, dtype=dtype).numpy()
        elif drawn.shape[1] == 1 or drawn.stride(1) == 0:
            # one draw for all runs
            yield drawn[:, :1].contiguous().numpy()
        else:
            yield drawn.index_select(1, places).numpy()
    yield scaled.noise_scale[runs[places]].numpy()


def _flat(tensor: Tensor | None) -> np.ndarray:
    return np.empty(0) if tensor is None else tensor.view(-1).numpy()


def _pack(tensor: Tensor | None, lanes: Tensor) -> np.ndarray:
    """Rows [..., R, k] of the runs in all places as strips [..., S, k, STRIP], flat."""
    if tensor is None:
        return np.empty(0)
    strips = tensor.index_select(-2, lanes).unflatten(-2, (-1, STRIP))
    return strips.mT.contiguous().view(-1).numpy()


def _unpack(values: np.ndarray, tensor: Tensor | None, runs: Tensor) -> None:
    """Write strips back into the rows of ``runs``."""
    if tensor is None:
        return
    *lead, _, k = tensor.shape
    strips = torch.from_numpy(values).view(*lead, -1, k, STRIP)
    rows = strips.mT.reshape(*lead, -1, k).narrow(-2, 0, len(runs))
    tensor.index_copy_(-2, runs, rows)

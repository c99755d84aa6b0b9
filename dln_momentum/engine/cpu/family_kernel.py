"""One block of steps of any member of the family in compiled code, on a CPU.

The runs are laid out as `dln_momentum.engine.cpu.kernel` lays out those of the poster's method.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dln_momentum.engine.cpu.family_block import advance_family_blocks
from dln_momentum.engine.cpu.family_carried import Codes, FamilyCarried, StepArrays
from dln_momentum.engine.cpu.family_run import advance_family_runs
from dln_momentum.engine.cpu.kernel import (
    drawn_by,
    endings_of,
    pack,
    panels_of,
    simd_blocks,
    slots_of,
    spans_of,
)
from dln_momentum.engine.cpu.panels import blocks_together
from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State


def advance(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    """Advance ``runs`` of the state by the steps of a chunk, in place; see `backends.Kernel`."""
    side_by_side = simd_blocks(scaled, len(runs))
    if side_by_side > 0:
        _advance_blocks(scaled, state, runs[:side_by_side], chunk.part(slice(side_by_side)))
    if side_by_side < len(runs):
        part = slice(side_by_side, None)
        _advance_runs(scaled, state, runs[part], chunk.part(part))


def _advance_blocks(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    slots = slots_of(len(runs))
    run_of_slot = runs[slots]
    *rows, decays = _tensors(state)
    packed = [pack(tensor, run_of_slot) for tensor in rows]
    packed.append(np.empty(0) if decays is None else decays[run_of_slot].numpy().ravel())
    advance_family_blocks(
        _codes(scaled),
        panels_of(scaled),
        blocks_together(scaled.X.shape[-2], scaled.X.shape[-1]),
        pack(scaled.target, run_of_slot),
        _depth(scaled, run_of_slot),
        _rates(chunk.part(slots)),
        FamilyCarried(*packed),
        _carried(state),
        endings_of(scaled, state),
        drawn_by(scaled, chunk.part(slots), run_of_slot),
        runs.numpy(),
        chunk.start,
        chunk.steps,
    )


def _advance_runs(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    advance_family_runs(
        _codes(scaled),
        *spans_of(scaled),
        scaled.matrix.numpy(),
        scaled.target.numpy(),
        _depth(scaled, runs),
        _rates(chunk),
        _carried(state),
        endings_of(scaled, state),
        drawn_by(scaled, chunk, runs),
        runs.numpy(),
        chunk.start,
        chunk.steps,
    )


def _codes(scaled: ScaledProblem) -> Codes:
    assert scaled.family is not None
    return Codes(scaled.family.kind, scaled.family.loss, scaled.family.decoupled)


def _depth(scaled: ScaledProblem, runs: Tensor) -> np.ndarray:
    assert scaled.family is not None
    return scaled.family.depth[runs].numpy()


def _rates(chunk: Chunk) -> StepArrays:
    """The rates of the chunk's runs; one row where all steps have the same."""
    assert chunk.rates is not None
    constant = all(rate.stride(0) == 0 for rate in chunk.rates)
    rows = slice(1) if constant else slice(None)
    return StepArrays(*(rate[rows].contiguous().numpy() for rate in chunk.rates))


def _tensors(state: State) -> tuple[Tensor | None, ...]:
    """The fields of `FamilyCarried`, in their order."""
    sums = (state.path_sums, state.recent_sums)
    return state.w, state.p, state.residual_sum, state.recent_residual, *sums, state.decays


def _carried(state: State) -> FamilyCarried:
    return FamilyCarried(*(np.empty((0, 0)) if t is None else t.numpy() for t in _tensors(state)))

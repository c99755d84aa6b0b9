"""Many runs of any member of the family on shared data: the SIMD blocks of `simd_block`.

Arrays are laid out as there. Rates may change at each step and differ between runs, so that each
pass over a panel's coordinates goes in parts of `PERIOD` entries, for which they are laid out.
"""

from __future__ import annotations

import math

import numpy as np

from dln_momentum.engine.cpu.compiled import (
    allocating,
    compiled,
    inlined,
    unsigned,
    zeros,
    zeros_at,
)
from dln_momentum.engine.cpu.family_carried import PERIOD, FamilyBuffers
from dln_momentum.engine.cpu.family_passes import family_update
from dln_momentum.engine.cpu.family_steps import (
    add_decay,
    add_rows_of_block,
    apply_slope,
    family_theta,
    lay_out_rates,
    mean_of,
    plus_loss,
    room_for_rates,
    start_residual,
)
from dln_momentum.engine.cpu.passes import RUNNING, verdict
from dln_momentum.engine.cpu.registers import LANES
from dln_momentum.engine.cpu.simd_block import (
    add_panel,
    keep_batches,
    panel_bounds,
    panel_gradient,
    subtract_noise,
)
from dln_momentum.engine.family import NESTEROV, SQUARED
from dln_momentum.engine.scaled import CHECK_EVERY


@allocating
def advance_family_blocks(
    codes, panels, group, target, depth, rates, packed, carried, endings, drawn, runs, step, steps
):
    """Advance S SIMD blocks by ``steps`` steps, ``group`` side by side; see `backends.Kernel`.

    Args:
        codes: `Codes`.
        panels: `Panels` of X/sqrt(n).
        group: blocks that share each panel while it is in the cache.
        target: targets or labels, [S, n, LANES].
        depth: D of each slot, [S, LANES].
        rates: `StepArrays` of the slots.
        packed: `FamilyCarried` of the blocks, flat, as in `simd_block`; changed on the way.
        carried, endings: `FamilyCarried` and `Endings` of all runs.
        drawn: `Drawn` of the slots of the blocks.
        runs: which run is in which slot; the padding lanes of the last block have none.
        step: the step that the runs are at.
    """
    size = group * panels.size
    sign_changes = np.empty(size, np.int64)
    buffers = FamilyBuffers(zeros_at(size, 7), zeros_at(size, 7), sign_changes, zeros(6 * PERIOD))
    residual, ahead = zeros(len(target)), zeros(len(target))
    losses, weights = np.empty(group * LANES), np.empty(panels.rows[-1])
    laid, lanes_of = room_for_rates(group)
    _advance_groups(
        codes, panels, group, target, depth, rates, packed, carried, endings, drawn, runs, step,
        steps, buffers, residual, ahead, losses, weights, laid, lanes_of,
    )  # fmt: skip


@compiled
def _advance_groups(
    codes, panels, group, target, depth, rates, packed, carried, endings, drawn, runs, step, steps,
    buffers, residual, ahead, losses, weights, laid, lanes_of,
):  # fmt: skip
    n, blocks, sign_changes = panels.rows[-1], len(depth) // LANES, buffers.sign_changes
    noise, batches, root = drawn.noise, drawn.batches, math.sqrt(panels.rows[-1])
    minus = len(packed.w) - blocks * panels.columns[-1] * LANES
    columns = min(panels.size // LANES, PERIOD // LANES)
    moving = len(rates.step) > 1
    for first in range(0, blocks, group):
        last = min(first + group, blocks)
        lanes = min(last * LANES, len(runs)) - first * LANES
        start, stop = first * n * LANES, last * n * LANES
        slots = (last - first) * LANES
        sign_changes[: (last - first) * panels.size] = 0
        lay_out_rates(codes, rates, depth, 0, first * LANES, slots, columns, laid, lanes_of)
        looks = codes.kind == NESTEROV
        _predict(codes, panels, first, last, minus, packed, looks, buffers, laid, target, residual)
        running = lanes
        for k in range(steps):
            if (step + k) % CHECK_EVERY == 0:
                found = residual
                if codes.kind == NESTEROV:
                    found = ahead
                    _predict(
                        codes, panels, first, last, minus, packed, False, buffers, laid, target,
                        found,
                    )  # fmt: skip
                _losses(codes.loss, found, target, losses, first, last, n, root)
                for lane in range(lanes):
                    run = runs[first * LANES + lane]
                    if endings.status[run] != RUNNING:
                        continue
                    status = verdict(losses[lane], endings.tol, endings.ceiling[run])
                    if status != RUNNING:
                        running -= 1
                        endings.status[run] = status
                        _write_back(
                            panels, packed, carried, endings, sign_changes, minus, first, lane,
                            run, step + k, losses[lane],
                        )  # fmt: skip
                if running == 0:
                    break
            if codes.loss != SQUARED:
                apply_slope(codes.loss, residual, target, root, start, stop)
            if len(noise) > 0:
                subtract_noise(residual, noise[k], drawn.noise_scale, first, last)
            if len(batches) > 0:
                keep_batches(residual, batches[k], weights, first, last, n)
            if moving and k > 0:
                lay_out_rates(codes, rates, depth, k, first * LANES, slots, columns, laid, lanes_of)
            for s in range(first, last):
                at = (s - first) * LANES
                add_rows_of_block(
                    residual, packed.recent_residual, packed.residual_sum, lanes_of.weight[at:],
                    lanes_of.carry[at:], s * n * LANES, n,
                )  # fmt: skip
            if len(packed.decays) > 0:
                add_decay(
                    packed.decays, lanes_of, lanes_of.carry, first * LANES, slots, codes.decoupled
                )
            start_residual(codes, ahead, target, start, stop)
            for c in range(len(panels.columns) - 1):
                panel_gradient(panels, c, first, last, residual, buffers.gradient)
                _panel_update(codes, panels, c, first, last, minus, packed, buffers, laid)
                add_panel(panels, c, first, last, buffers.theta, ahead)
            residual, ahead = ahead, residual
        if running == 0:
            continue
        if codes.kind == NESTEROV:
            _predict(
                codes, panels, first, last, minus, packed, False, buffers, laid, target, residual
            )
        _losses(codes.loss, residual, target, losses, first, last, n, root)
        for lane in range(lanes):
            run = runs[first * LANES + lane]
            if endings.status[run] == RUNNING:
                _write_back(
                    panels, packed, carried, endings, sign_changes, minus, first, lane, run,
                    step + steps, losses[lane],
                )  # fmt: skip


@inlined
def _parts(columns, c, s, minus, begin):
    """Where a part of panel c of block s begins for w_+, for w_- and in the panel, and its size."""
    plus, less, size = panel_bounds(columns, c, s, minus)
    offset = unsigned(begin)
    return plus + offset, less + offset, offset, min(size - offset, unsigned(PERIOD))


@compiled
def _predict(codes, panels, first, last, minus, packed, looks, buffers, laid, target, residual):
    """The predictions of iterates or points ahead, less the target of the squared loss."""
    n = panels.rows[-1]
    start_residual(codes, residual, target, first * n * LANES, last * n * LANES)
    for c in range(len(panels.columns) - 1):
        width = (panels.columns[c + 1] - panels.columns[c]) * LANES
        for s in range(first, last):
            for begin in range(0, width, PERIOD):
                plus, less, offset, size = _parts(panels.columns, c, s, minus, begin)
                at = unsigned((s - first) * panels.size) + offset
                rate = unsigned((s - first) * PERIOD)
                family_theta(codes, packed, looks, buffers, laid, plus, less, at, rate, size)
        add_panel(panels, c, first, last, buffers.theta, residual)


@compiled
def _panel_update(codes, panels, c, first, last, minus, packed, buffers, laid):
    width = (panels.columns[c + 1] - panels.columns[c]) * LANES
    for s in range(first, last):
        for begin in range(0, width, PERIOD):
            plus, less, offset, size = _parts(panels.columns, c, s, minus, begin)
            at = unsigned((s - first) * panels.size) + offset
            rate = unsigned((s - first) * PERIOD)
            family_update(codes.kind, packed, buffers, laid, plus, less, at, rate, size)


@compiled
def _losses(loss, residual, target, losses, first, last, n, root):
    """The loss of each run, summed over ascending rows."""
    for lane in range((last - first) * LANES):
        losses[lane] = 0.0
    for s in range(first, last):
        for j in range(n):
            for lane in range(LANES):
                i = (s * n + j) * LANES + lane
                at = (s - first) * LANES + lane
                losses[at] = plus_loss(losses[at], loss, residual[i], target[i], root)
    for lane in range((last - first) * LANES):
        losses[lane] = mean_of(loss, losses[lane], n)


@compiled
def _write_back(
    panels, packed, carried, endings, sign_changes, minus, first, lane, run, step, loss
):
    """Write one run from its slot in the blocks to where all runs are kept."""
    n, d, size = panels.rows[-1], panels.columns[-1], panels.size
    block, slot = first + lane // LANES, lane % LANES
    endings.loss[run], endings.steps[run] = loss, step
    for i in range(lane // LANES * size + slot, (lane // LANES + 1) * size, LANES):
        endings.sign_changes[run] += sign_changes[i]
    for sign in range(2):
        at = sign * minus + block * d * LANES + slot
        for i in range(d):
            carried.w[sign, run, i] = packed.w[at + i * LANES]
            carried.p[sign, run, i] = packed.p[at + i * LANES]
            carried.sums[sign, run, i] = packed.sums[at + i * LANES]
            carried.recent_sums[sign, run, i] = packed.recent_sums[at + i * LANES]
    for j in range(n):
        at = (block * n + j) * LANES + slot
        carried.residual_sum[run, j] = packed.residual_sum[at]
        carried.recent_residual[run, j] = packed.recent_residual[at]
    for i in range(2 if len(packed.decays) > 0 else 0):
        carried.decays[run, i] = packed.decays[2 * (first * LANES + lane) + i]

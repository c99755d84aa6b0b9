"""Many runs on shared data, compiled: SIMD blocks of runs, one run to each lane of the registers.

A step goes once through the coordinates, panel by panel: the panel's gradient, its update, and its
share of the next residual. Of all the arrays of length d, only w and p are streamed through the
cache, once a step; the gradient and theta never leave it. Where X itself is small a block takes all
of its steps before the next one starts, and its whole state stays in the cache.

Arrays are flat and laid out by SIMD blocks: entry ``(s d + i) LANES + lane`` is coordinate i of run
``s LANES + lane``.
"""

from __future__ import annotations

import numpy as np

from dln_momentum.engine.cpu.carried import Buffers
from dln_momentum.engine.cpu.compiled import (
    allocating,
    compiled,
    inlined,
    unsigned,
    zeros,
    zeros_at,
)
from dln_momentum.engine.cpu.passes import (
    RUNNING,
    add_to,
    batch_weights,
    chosen_update,
    less_product,
    plus_square,
    squares_difference,
    verdict,
)
from dln_momentum.engine.cpu.products import (
    add_block_product,
    less_block_product,
    set_block_product,
)
from dln_momentum.engine.cpu.registers import LANES
from dln_momentum.engine.scaled import CHECK_EVERY
from dln_momentum.engine.state import NOT_SUMMED


@allocating
def advance_simd_blocks(
    panels, group, target, beta, packed, carried, endings, drawn, summing, runs, step, steps
):
    """Advance S SIMD blocks by ``steps`` steps, ``group`` side by side; see `backends.Kernel`.

    Args:
        panels: `Panels` of X/sqrt(n).
        group: blocks that share each panel while it is in the cache.
        target: [S, n, LANES].
        beta: [S, LANES].
        packed: `Carried` of the blocks, flat: w, p and sums are [S, d, LANES] twice, the second
            `apart` from the first, residual_sum is [S, n, LANES], products [S, d, LANES]; changed
            on the way.
        carried, endings: `Carried` and `Endings` of all runs; a run is written back where it ends.
        drawn: `Drawn` of the slots of the blocks.
        summing: one of `NOT_SUMMED`, `TELESCOPED`, `DIRECT`.
        runs: which run is in which slot; the padding lanes of the last block have none.
        step: the step that the runs are at.
    """
    size = group * panels.size
    sign_changes = np.empty(size, np.int64)
    buffers = Buffers(
        zeros(size), zeros_at(size, 7), zeros_at(size, 7), sign_changes, zeros(2 * size)
    )
    residual, ahead = zeros(len(target)), zeros(len(target))
    norms, weights = np.empty(group * LANES), np.empty(panels.rows[-1])
    _advance_groups(
        panels, group, target, beta, packed, carried, endings, drawn, summing, runs, step, steps,
        buffers, residual, ahead, norms, weights,
    )  # fmt: skip


@compiled
def _advance_groups(
    panels, group, target, beta, packed, carried, endings, drawn, summing, runs, step, steps,
    buffers, residual, ahead, norms, weights,
):  # fmt: skip
    n, blocks = panels.rows[-1], len(beta) // LANES
    minus = len(packed.w) - blocks * panels.columns[-1] * LANES
    noise, batches, sign_changes = drawn.noise, drawn.batches, buffers.sign_changes
    for first in range(0, blocks, group):
        last = min(first + group, blocks)
        lanes = min(last * LANES, len(runs)) - first * LANES
        for i in range((last - first) * panels.size):
            buffers.beta[i] = beta[(first + i // panels.size) * LANES + i % LANES]
            sign_changes[i] = 0
        for c in range(len(panels.columns) - 1):
            _panel_theta(panels, c, first, last, minus, packed.w, buffers.theta)
            _panel_residual(panels, c, first, last, buffers.theta, residual, target)
        running = lanes
        for k in range(steps):
            if (step + k) % CHECK_EVERY == 0:
                _squared_norms(residual, norms, first, last, n)
                for lane in range(lanes):
                    run = runs[first * LANES + lane]
                    if endings.status[run] != RUNNING:
                        continue
                    loss = norms[lane] / (2 * endings.gamma[run] ** 2)
                    status = verdict(loss, endings.tol, endings.ceiling[run])
                    if status != RUNNING:
                        running -= 1
                        endings.status[run] = status
                        _write_back(
                            panels, packed, carried, endings, sign_changes, summing, minus, first,
                            lane, run, step + k, loss,
                        )  # fmt: skip
                if running == 0:
                    break
            if len(noise) > 0:
                subtract_noise(residual, noise[k], drawn.noise_scale, first, last)
            if len(batches) > 0:
                keep_batches(residual, batches[k], weights, first, last, n)
            start, size = unsigned(first * n * LANES), unsigned((last - first) * n * LANES)
            add_to(packed.residual_sum, residual, start, size)
            for c in range(len(panels.columns) - 1):
                panel_gradient(panels, c, first, last, residual, buffers.gradient)
                _panel_update(panels, c, first, last, minus, packed, buffers, summing)
                _panel_residual(panels, c, first, last, buffers.theta, ahead, target)
            residual, ahead = ahead, residual
        _squared_norms(residual, norms, first, last, n)
        for lane in range(lanes):
            run = runs[first * LANES + lane]
            if endings.status[run] == RUNNING:
                loss = norms[lane] / (2 * endings.gamma[run] ** 2)
                _write_back(
                    panels, packed, carried, endings, sign_changes, summing, minus, first, lane,
                    run, step + steps, loss,
                )  # fmt: skip


@compiled
def _write_back(
    panels, packed, carried, endings, sign_changes, summing, minus, first, lane, run, step, loss
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
            if summing != NOT_SUMMED:
                carried.sums[sign, run, i] = packed.sums[at + i * LANES]
    for i in range(d if summing != NOT_SUMMED else 0):
        carried.products[run, i] = packed.products[(block * d + i) * LANES + slot]
    for j in range(n):
        carried.residual_sum[run, j] = packed.residual_sum[(block * n + j) * LANES + slot]


@inlined
def panel_bounds(columns, c, s, minus):
    """Where panel c of block s lies in arrays for w_+ and for w_-, and its size.

    The entries for w_- begin at ``minus``.
    """
    plus = (s * columns[-1] + columns[c]) * LANES
    size = (columns[c + 1] - columns[c]) * LANES
    return unsigned(plus), unsigned(minus + plus), unsigned(size)


@inlined
def _panel_theta(panels, c, first, last, minus, w, theta):
    for s in range(first, last):
        plus, less, size = panel_bounds(panels.columns, c, s, minus)
        squares_difference(w, theta, plus, less, unsigned((s - first) * panels.size), size)


@inlined
def panel_gradient(panels, c, first, last, residual, gradient):
    """Write the gradient of panel c of the coordinates."""
    A, columns, rows = panels.A, panels.columns, panels.rows
    n, width = rows[-1], columns[c + 1] - columns[c]
    for b in range(len(rows) - 1):
        height, A_at = rows[b + 1] - rows[b], columns[c] * n + rows[b] * width
        for s in range(first, last):
            out_at, at = (s - first) * panels.size, (s * n + rows[b]) * LANES
            if b == 0:
                set_block_product(gradient, out_at, width, A, A_at, 1, width, residual, at, height)
            else:
                add_block_product(gradient, out_at, width, A, A_at, 1, width, residual, at, height)


@inlined
def _panel_update(panels, c, first, last, minus, packed, buffers, summing):
    for s in range(first, last):
        plus, less, size = panel_bounds(panels.columns, c, s, minus)
        chosen_update(
            summing, packed, buffers, plus, less, unsigned((s - first) * panels.size), size
        )


@compiled
def add_panel(panels, c, first, last, theta, residual):
    """Add X theta/sqrt(n) of panel c of the coordinates to the residual."""
    A, columns, rows = panels.A, panels.columns, panels.rows
    n, width = rows[-1], columns[c + 1] - columns[c]
    for b in range(len(rows) - 1):
        height, A_at = rows[b + 1] - rows[b], columns[c] * n + rows[b] * width
        for s in range(first, last):
            out_at, at = (s * n + rows[b]) * LANES, (s - first) * panels.size
            add_block_product(residual, out_at, height, A, A_at, width, 1, theta, at, width)


@inlined
def _panel_residual(panels, c, first, last, theta, residual, target):
    """Add X theta/sqrt(n) of panel c to the residual; the first panel starts from -target."""
    if c > 0:
        add_panel(panels, c, first, last, theta, residual)
        return
    A, columns, rows = panels.A, panels.columns, panels.rows
    n, width = rows[-1], columns[1]
    for b in range(len(rows) - 1):
        height, A_at = rows[b + 1] - rows[b], rows[b] * width
        for s in range(first, last):
            out_at, at = (s * n + rows[b]) * LANES, (s - first) * panels.size
            less_block_product(
                residual, out_at, height, A, A_at, width, 1, theta, at, width, target, out_at
            )


@compiled
def _squared_norms(residual, norms, first, last, n):
    """|residual|^2 of each run, summed over ascending rows."""
    for lane in range((last - first) * LANES):
        norms[lane] = 0.0
    for s in range(first, last):
        for j in range(n):
            for lane in range(LANES):
                at = (s - first) * LANES + lane
                norms[at] = plus_square(norms[at], residual[(s * n + j) * LANES + lane])


@compiled
def subtract_noise(residual, noise, scale, first, last):
    """Take the label noise of a step from the residual."""
    n = noise.shape[1]
    for slot in range(first * LANES, last * LANES):
        drawn = noise[slot if len(noise) > 1 else 0]
        for j in range(n):
            at = (slot // LANES * n + j) * LANES + slot % LANES
            residual[at] = less_product(residual[at], drawn[j], scale[slot])


@compiled
def keep_batches(residual, batches, weights, first, last, n):
    """Weight each row by how often it is in the run's batch, times n / |B|."""
    for slot in range(first * LANES, last * LANES):
        if slot == first * LANES or len(batches) > 1:
            batch_weights(batches[slot if len(batches) > 1 else 0], weights)
        start = slot // LANES * n * LANES + slot % LANES
        for j in range(n):
            residual[start + j * LANES] *= weights[j]

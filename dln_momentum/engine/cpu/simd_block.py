"""Many runs on shared data, compiled: strips of runs, one run to each place of a vector register.

A step goes once through the coordinates, block by block: the block's gradient, its update, and its
share of the next residual. Of all the arrays of length d, only w and p are streamed through the
cache, once a step; the gradient and theta never leave it. Where X itself is small a strip takes all
of its steps before the next one starts, and its whole state stays in the cache.

Arrays are flat and laid out by strips: entry ``(s d + i) STRIP + lane`` belongs to coordinate i of
run ``s STRIP + lane``.
"""

from __future__ import annotations

import numpy as np

from dln_momentum.engine.cpu.carried import NOT_SUMMED
from dln_momentum.engine.cpu.compiled import compiled, inlined, unsigned, zeros
from dln_momentum.engine.cpu.passes import (
    RUNNING,
    batch_weights,
    chosen_update,
    finish_residual,
    squares_difference,
    verdict,
)
from dln_momentum.engine.cpu.products import STRIP, add_strip_product, set_strip_product
from dln_momentum.engine.scaled import CHECK_EVERY


@compiled
def advance_strips(
    A, columns, rows, block, group, target, beta, packed, carried, endings, drawn, summing, runs,
    step, steps,
):  # fmt: skip
    """Advance S strips by ``steps`` steps, ``group`` of them side by side; see `backends.Kernel`.

    Args:
        A: X/sqrt(n) in blocks, each stored row by row: first all those of the first columns.
        columns, rows: where its blocks start, and the end.
        block: STRIP times the columns of its widest block.
        group: strips that share each block while it is in the cache.
        target: [S, n, STRIP].
        beta: [S, STRIP].
        packed: `Carried` of the strips, flat: w, p and sums are [2, S, d, STRIP], residual_sum is
            [S, n, STRIP], products [S, d, STRIP]; changed on the way.
        carried, endings: `Carried` and `Endings` of all runs; a run is written back where it ends.
        drawn: `Drawn` of the places of the strips.
        summing: one of `NOT_SUMMED`, `TELESCOPED`, `DIRECT`.
        runs: which run is where, for the places that stand for a run; the last strip may have more.
        step: the step that the runs are at.
    """
    n, strips = rows[-1], len(beta) // STRIP
    w, p, sums, products = packed.w, packed.p, packed.sums, packed.products
    noise, batches = drawn.noise, drawn.batches
    gradient, theta = zeros(group * block), zeros(group * block)
    betas, scratch = zeros(group * block), zeros(2 * group * block)
    flips, norms = np.empty(group * block, np.int32), np.empty(group * STRIP)
    residual, ahead = zeros(len(target)), zeros(len(target))
    for first in range(0, strips, group):
        last = min(first + group, strips)
        lanes = min(last * STRIP, len(runs)) - first * STRIP
        for i in range(first * n * STRIP, last * n * STRIP):
            residual[i] = -target[i]
        for i in range((last - first) * block):
            betas[i] = beta[(first + i // block) * STRIP + i % STRIP]
            flips[i] = 0
        for c in range(len(columns) - 1):
            _block_theta(columns, c, first, last, strips, block, w, theta)
            _add_block(A, columns, rows, c, first, last, block, theta, residual)
        running = lanes
        for k in range(steps):
            if (step + k) % CHECK_EVERY == 0:
                _squared_norms(residual, norms, first, last, n)
                for lane in range(lanes):
                    run = runs[first * STRIP + lane]
                    if endings.status[run] != RUNNING:
                        continue
                    loss = norms[lane] / (2 * endings.gamma[run] ** 2)
                    status = verdict(loss, endings.tol, endings.ceiling[run])
                    if status != RUNNING:
                        running -= 1
                        endings.status[run] = status
                        _write_back(
                            packed, carried, endings, flips, summing, columns, n, block, strips,
                            first, lane, run, step + k, loss,
                        )  # fmt: skip
                if running == 0:
                    break
            if len(noise) > 0:
                _subtract_noise(residual, noise[k], drawn.noise_scale, first, last)
            if len(batches) > 0:
                _keep_batches(residual, batches[k], first, last, n)
            start, size = unsigned(first * n * STRIP), unsigned((last - first) * n * STRIP)
            finish_residual(residual, ahead, target, packed.residual_sum, start, size)
            for c in range(len(columns) - 1):
                _block_gradient(A, columns, rows, c, first, last, block, residual, gradient)
                _block_update(
                    columns, c, first, last, strips, block, w, p, flips, gradient, betas, theta,
                    sums, products, scratch, summing,
                )  # fmt: skip
                _add_block(A, columns, rows, c, first, last, block, theta, ahead)
            residual, ahead = ahead, residual
        _squared_norms(residual, norms, first, last, n)
        for lane in range(lanes):
            run = runs[first * STRIP + lane]
            if endings.status[run] == RUNNING:
                loss = norms[lane] / (2 * endings.gamma[run] ** 2)
                _write_back(
                    packed, carried, endings, flips, summing, columns, n, block, strips, first,
                    lane, run, step + steps, loss,
                )  # fmt: skip


@compiled
def _write_back(
    packed, carried, endings, flips, summing, columns, n, block, strips, first, lane, run, step,
    loss,
):  # fmt: skip
    """Write one run from its place in the strips to where all runs are kept."""
    d, strip, place = columns[-1], first + lane // STRIP, lane % STRIP
    endings.loss[run], endings.steps[run] = loss, step
    for i in range(lane // STRIP * block + place, (lane // STRIP + 1) * block, STRIP):
        endings.sign_changes[run] += flips[i]
    for sign in range(2):
        at = (sign * strips + strip) * d * STRIP + place
        for i in range(d):
            carried.w[sign, run, i] = packed.w[at + i * STRIP]
            carried.p[sign, run, i] = packed.p[at + i * STRIP]
            if summing != NOT_SUMMED:
                carried.sums[sign, run, i] = packed.sums[at + i * STRIP]
    for i in range(d if summing != NOT_SUMMED else 0):
        carried.products[run, i] = packed.products[(strip * d + i) * STRIP + place]
    for j in range(n):
        carried.residual_sum[run, j] = packed.residual_sum[(strip * n + j) * STRIP + place]


@inlined
def _places(columns, c, s, strips):
    """Where block c of strip s lies in arrays for w_+ and for w_-, and its size."""
    d = columns[-1]
    plus, minus = (s * d + columns[c]) * STRIP, ((strips + s) * d + columns[c]) * STRIP
    size = (columns[c + 1] - columns[c]) * STRIP
    return unsigned(plus), unsigned(minus), unsigned(size)


@inlined
def _block_theta(columns, c, first, last, strips, block, w, theta):
    for s in range(first, last):
        plus, minus, size = _places(columns, c, s, strips)
        squares_difference(w, theta, plus, minus, unsigned((s - first) * block), size)


@inlined
def _block_gradient(A, columns, rows, c, first, last, block, residual, gradient):
    n, width = rows[-1], columns[c + 1] - columns[c]
    for b in range(len(rows) - 1):
        height, A_at = rows[b + 1] - rows[b], columns[c] * n + rows[b] * width
        for s in range(first, last):
            out_at, at = (s - first) * block, (s * n + rows[b]) * STRIP
            if b == 0:
                set_strip_product(gradient, out_at, width, A, A_at, 1, width, residual, at, height)
            else:
                add_strip_product(gradient, out_at, width, A, A_at, 1, width, residual, at, height)


@inlined
def _block_update(
    columns, c, first, last, strips, block, w, p, flips, gradient, betas, theta, sums, products,
    scratch, summing,
):  # fmt: skip
    at_once = last - first if len(columns) == 2 else 1
    for s in range(first, last, at_once):
        plus, minus, size = _places(columns, c, s, strips)
        at, size = unsigned((s - first) * block), size * unsigned(at_once)
        chosen_update(
            summing, w, p, flips, gradient, betas, theta, sums, products, scratch,
            plus, minus, at, size,
        )  # fmt: skip


@compiled
def _add_block(A, columns, rows, c, first, last, block, theta, residual):
    """Add X theta/sqrt(n) of block c of the coordinates to the residual."""
    n, width = rows[-1], columns[c + 1] - columns[c]
    for b in range(len(rows) - 1):
        height, A_at = rows[b + 1] - rows[b], columns[c] * n + rows[b] * width
        for s in range(first, last):
            out_at, at = (s * n + rows[b]) * STRIP, (s - first) * block
            add_strip_product(residual, out_at, height, A, A_at, width, 1, theta, at, width)


@compiled
def _squared_norms(residual, norms, first, last, n):
    """|residual|^2 of each run, summed over ascending rows."""
    for lane in range((last - first) * STRIP):
        norms[lane] = 0.0
    for s in range(first, last):
        for j in range(n):
            for lane in range(STRIP):
                entry = residual[(s * n + j) * STRIP + lane]
                norms[(s - first) * STRIP + lane] += entry * entry


@compiled
def _subtract_noise(residual, noise, scale, first, last):
    n = noise.shape[1]
    for place in range(first * STRIP, last * STRIP):
        drawn = noise[place if len(noise) > 1 else 0]
        for j in range(n):
            residual[(place // STRIP * n + j) * STRIP + place % STRIP] -= drawn[j] * scale[place]


@compiled
def _keep_batches(residual, batches, first, last, n):
    """Weight each row by how often it is in the run's batch, times n / |B|."""
    weights = np.empty(n)
    for place in range(first * STRIP, last * STRIP):
        if place == first * STRIP or len(batches) > 1:
            batch_weights(batches[place if len(batches) > 1 else 0], weights)
        start = place // STRIP * n * STRIP + place % STRIP
        for j in range(n):
            residual[start + j * STRIP] *= weights[j]

"""Runs one after the other, compiled: one run, or data of its own for each.

A vector register holds neighbouring coordinates here. X and its transpose are laid out in spans of
a few registers of columns, each span row by row. The sums run in the same order as in `simd_block`,
so that a run gets the same bits from both; that is what two copies of X are needed for.
"""

from __future__ import annotations

import math

import numpy as np

from dln_momentum.engine.cpu.carried import Buffers, Carried
from dln_momentum.engine.cpu.compiled import allocating, apart, compiled, unsigned, zeros, zeros_at
from dln_momentum.engine.cpu.passes import (
    RUNNING,
    batch_weights,
    chosen_update,
    finish_residual,
    less_product,
    plus_square,
    squares_difference,
    verdict,
)
from dln_momentum.engine.cpu.products import MOST_VECTORS, add_span_product, set_span_product
from dln_momentum.engine.cpu.registers import LANES, WIDTH
from dln_momentum.engine.scaled import CHECK_EVERY
from dln_momentum.engine.state import NOT_SUMMED


@allocating
def advance_one_by_one(
    A, by_column, by_row, matrix, target, beta, carried, endings, drawn, summing, runs, step, steps
):
    """Advance ``runs`` by ``steps`` steps in slot, one after the other; see `backends.Kernel`.

    Args:
        A: X/sqrt(n), [M, n, d]; if M = 1 its shape alone is read.
        by_column, by_row: A and A^T by `fill_spans`, if M = 1; else room for them.
        matrix: which of the M matrices each run has, [R].
        target, beta: as in `ScaledProblem`, for all runs.
        carried, endings: `Carried` and `Endings` of all runs.
        drawn: `Drawn` of these runs.
        summing: one of `NOT_SUMMED`, `TELESCOPED`, `DIRECT`.
        runs: which of them, [R_t].
        step: the step that the runs are at.
    """
    n, d = A.shape[1:]
    filled, filled_n, summed = len(by_column) // n, len(by_row) // d, summing != NOT_SUMMED
    minus = apart(filled)
    both = minus + filled
    w, p, sums = zeros_at(both, 0), zeros_at(both, 2), zeros_at(both * summed, 4)
    products = zeros_at(filled * summed, 6)
    own_target, residual_sum, beta_of_all = zeros(filled_n), zeros(filled_n), zeros(filled)
    own = Carried(w, p, residual_sum, sums, products)
    sign_changes = np.zeros(filled, np.int64)
    gradient, theta = zeros_at(filled, 7), zeros_at(filled, 7)
    buffers = Buffers(beta_of_all, gradient, theta, sign_changes, zeros(2 * filled))
    residual, ahead, weights = zeros(filled_n), zeros(filled_n), np.empty(n)
    columns, rows = cut(d), cut(n)
    for slot in range(len(runs)):
        run = runs[slot]
        if len(A) > 1:
            fill_spans(A[matrix[run]], 1.0, by_column, False)
            fill_spans(A[matrix[run]], 1.0, by_row, True)
        for i in range(filled):
            # a coordinate that is not there stays at w = 1, where nothing divides by zero
            beta_of_all[i], w[i], w[minus + i] = beta[run], 1.0, 1.0
            p[i], p[minus + i] = 1 - beta[run], 1 - beta[run]
        for i in range(d):
            w[i], w[minus + i] = carried.w[0, run, i], carried.w[1, run, i]
            p[i], p[minus + i] = carried.p[0, run, i], carried.p[1, run, i]
            if summed:
                sums[i], sums[minus + i] = carried.sums[0, run, i], carried.sums[1, run, i]
                products[i] = carried.products[run, i]
        for j in range(n):
            own_target[j], residual_sum[j] = target[run, j], carried.residual_sum[run, j]
        status, taken, loss = _take_steps(
            by_column, by_row, columns, rows, n, d, own_target, residual, ahead, weights, own,
            buffers, summing, endings.tol, endings.ceiling[run], endings.gamma[run], drawn, slot,
            step, steps,
        )  # fmt: skip
        endings.loss[run], endings.status[run] = loss, status
        endings.steps[run] = step + taken
        for i in range(filled):
            endings.sign_changes[run] += sign_changes[i]
            sign_changes[i] = 0
        for i in range(d):
            carried.w[0, run, i], carried.w[1, run, i] = w[i], w[minus + i]
            carried.p[0, run, i], carried.p[1, run, i] = p[i], p[minus + i]
            if summed:
                carried.sums[0, run, i], carried.sums[1, run, i] = sums[i], sums[minus + i]
                carried.products[run, i] = products[i]
        for j in range(n):
            carried.residual_sum[run, j] = residual_sum[j]


@compiled
def _take_steps(
    by_column, by_row, columns, rows, n, d, target, residual, ahead, weights, own, buffers, summing,
    tol, ceiling, gamma, drawn, slot, step, steps,
):  # fmt: skip
    """The steps of a run up to the check that ends it: its status, their number, its last loss."""
    gradient, theta, filled = buffers.gradient, buffers.theta, len(buffers.theta)
    zero, minus, size = unsigned(0), unsigned(len(own.w) - filled), unsigned(filled)
    noise, batches = drawn.noise, drawn.batches
    squares_difference(own.w, theta, zero, minus, zero, size)
    for j in range(len(target)):
        residual[j] = -target[j]
    add_product(by_row, rows, d, theta, residual)
    for k in range(steps):
        if (step + k) % CHECK_EVERY == 0:
            loss = _squared_norm(residual, n) / (2 * gamma**2)
            status = verdict(loss, tol, ceiling)
            if status != RUNNING:
                return status, k, loss
        if len(noise) > 0:
            row = noise[k, slot if noise.shape[1] > 1 else 0]
            for j in range(n):
                residual[j] = less_product(residual[j], row[j], drawn.noise_scale[slot])
        if len(batches) > 0:
            batch_weights(batches[k, slot if batches.shape[1] > 1 else 0], weights)
            for j in range(n):
                residual[j] *= weights[j]
        finish_residual(residual, ahead, target, own.residual_sum, zero, unsigned(len(target)))
        for span in range(len(columns) - 1):
            start, vectors = columns[span] * WIDTH, columns[span + 1] - columns[span]
            set_span_product(gradient, start, vectors, residual, by_column, start * n, n)
        chosen_update(summing, own, buffers, zero, minus, zero, size)
        add_product(by_row, rows, d, theta, ahead)
        residual, ahead = ahead, residual
    return RUNNING, steps, _squared_norm(residual, n) / (2 * gamma**2)


def filled_up(length):
    """A length that the rows of the vector passes and the unrolled loops of the others divide."""
    unit = math.lcm(4 * WIDTH, LANES)
    return -(-length // unit) * unit


@allocating
def cut(length):
    """Where the spans of a length start, and its end, in registers.

    They are balanced, because a short span is a slow one.
    """
    vectors = -(-length // WIDTH)
    spans = -(-vectors // MOST_VECTORS)
    starts = np.empty(spans + 1, np.int64)
    for span in range(spans + 1):
        starts[span] = span * vectors // spans
    return starts


@allocating
def fill_spans(X, root, laid_out, transposed):
    """Write X/root, or its transpose, in spans of its columns."""
    rows, columns = X.shape
    if transposed:
        rows, columns = columns, rows
    starts = cut(columns)
    for span in range(len(starts) - 1):
        start, width = starts[span] * WIDTH, (starts[span + 1] - starts[span]) * WIDTH
        for j in range(rows):
            for i in range(min(width, columns - start)):
                entry = X[start + i, j] if transposed else X[j, start + i]
                laid_out[start * rows + j * width + i] = entry / root


@compiled
def add_product(by_row, starts, d, theta, residual):
    """Add X theta/sqrt(n) to the residual."""
    for span in range(len(starts) - 1):
        start, vectors = starts[span] * WIDTH, starts[span + 1] - starts[span]
        add_span_product(residual, start, vectors, theta, by_row, start * d, d)


@compiled
def _squared_norm(residual, n):
    """|residual|^2, summed over ascending rows."""
    norm = 0.0
    for j in range(n):
        norm = plus_square(norm, residual[j])
    return norm

"""Runs one after the other, compiled: one run, or data of its own for each.

A vector register holds neighbouring coordinates here. X and its transpose are laid out in spans of
a few registers of columns, each span row by row. The sums run in the same order as in `strips`, so
that a run gets the same bits from both; that is what it takes two copies of X for.
"""

from __future__ import annotations

import numpy as np

from dln_momentum.engine.compiled import compiled, unsigned, zeros
from dln_momentum.engine.passes import (
    audited_update,
    batch_weights,
    finish_residual,
    squares_difference,
    update,
)
from dln_momentum.engine.products import (
    MOST_VECTORS,
    WIDTH,
    add_span_product,
    set_span_product,
)
from dln_momentum.engine.scaled import CHECK_EVERY


@compiled
def advance_singly(
    A, by_column, by_row, target, beta, w, p, residual_sum, path_sums, products, runs, tolerance,
    gamma, loss, sign_changes, reached_tol, batches, noise, noise_scale, step, steps,
):  # fmt: skip
    """Advance ``runs`` by ``steps`` steps in place, one after the other.

    Args:
        A: X/sqrt(n), [1, n, d] for all runs or [R, n, d].
        by_column, by_row: A and A^T by `fill_spans`, if A is for all runs; else room for them.
        target, beta, ..., reached_tol: as in `ScaledProblem` and `State`, for all runs; path_sums
            and products are of no runs without an audit.
        runs: which of them, [R_t].
        batches: the rows in each batch, [steps, R_t or 1, |B|] int64, or of no steps.
        noise: label noise, [steps, R_t or 1, n], or of no steps; in ``target`` it is times
            ``noise_scale`` [R_t].
        step: the step that the runs are at.
    """
    n, d = A.shape[1:]
    filled, filled_n, audit = len(by_column) // n, len(by_row) // d, len(products) > 0
    own_w, own_p, flips = zeros(2 * filled), zeros(2 * filled), np.zeros(filled, np.int32)
    own_sums, own_products = zeros(2 * filled * audit), zeros(filled * audit)
    own_target, own_residual_sum, betas = zeros(filled_n), zeros(filled_n), zeros(filled)
    for place in range(len(runs)):
        run = runs[place]
        if len(A) > 1:
            fill_spans(A[run], by_column, False)
            fill_spans(A[run], by_row, True)
        for i in range(filled):
            # a coordinate that is not there stays at w = 1, where nothing divides by zero
            betas[i], own_w[i], own_w[filled + i] = beta[run], 1.0, 1.0
            own_p[i], own_p[filled + i] = 1 - beta[run], 1 - beta[run]
        for i in range(d):
            own_w[i], own_w[filled + i] = w[0, run, i], w[1, run, i]
            own_p[i], own_p[filled + i] = p[0, run, i], p[1, run, i]
            if audit:
                own_sums[i], own_sums[filled + i] = path_sums[0, run, i], path_sums[1, run, i]
                own_products[i] = products[run, i]
        for j in range(n):
            own_target[j], own_residual_sum[j] = target[run, j], residual_sum[run, j]
        arrived, norm = _take_steps(
            by_column, by_row, n, d, own_target, betas, own_w, own_p, own_residual_sum, own_sums,
            own_products, flips, tolerance[run], batches, noise, noise_scale, place, step, steps,
        )  # fmt: skip
        if reached_tol[run] < 0:
            reached_tol[run] = arrived
        loss[run] = norm / (2 * gamma[run] ** 2)
        for i in range(d):
            sign_changes[run] += flips[i]
            flips[i] = 0
            w[0, run, i], w[1, run, i] = own_w[i], own_w[filled + i]
            p[0, run, i], p[1, run, i] = own_p[i], own_p[filled + i]
            if audit:
                path_sums[0, run, i], path_sums[1, run, i] = own_sums[i], own_sums[filled + i]
                products[run, i] = own_products[i]
        for j in range(n):
            residual_sum[run, j] = own_residual_sum[j]


@compiled
def _take_steps(
    by_column, by_row, n, d, target, betas, w, p, residual_sum, path_sums, products, flips,
    tolerance, batches, noise, noise_scale, place, step, steps,
):  # fmt: skip
    """The steps of one run; when its loss was first seen at or below the tolerance, or -1, and the
    squared norm of its last residual."""
    gradient, theta, scratch = zeros(len(betas)), zeros(len(betas)), zeros(2 * len(betas))
    residual, ahead, weights = zeros(len(target)), zeros(len(target)), np.empty(n)
    zero, minus, size = unsigned(0), unsigned(len(betas)), unsigned(len(betas))
    columns, rows, arrived = _cut(d), _cut(n), -1
    squares_difference(w, theta, zero, minus, zero, size)
    for j in range(len(target)):
        residual[j] = -target[j]
    _add_product(by_row, rows, d, theta, residual)
    for k in range(steps):
        if (step + k) % CHECK_EVERY == 0 and arrived < 0:
            arrived = step + k if _squared_norm(residual, n) <= tolerance else -1
        if len(noise) > 0:
            drawn = noise[k, place if noise.shape[1] > 1 else 0]
            for j in range(n):
                residual[j] -= drawn[j] * noise_scale[place]
        if len(batches) > 0:
            batch_weights(batches[k, place if batches.shape[1] > 1 else 0], weights)
            for j in range(n):
                residual[j] *= weights[j]
        finish_residual(residual, ahead, target, residual_sum, zero, unsigned(len(target)))
        for span in range(len(columns) - 1):
            start, vectors = columns[span] * WIDTH, columns[span + 1] - columns[span]
            set_span_product(gradient, start, vectors, residual, by_column, start * n, n)
        if len(products) == 0:
            update(w, p, flips, gradient, betas, theta, zero, minus, zero, size)
        else:
            audited_update(
                w, p, flips, gradient, betas, theta, path_sums, products, scratch,
                zero, minus, zero, size,
            )  # fmt: skip
        _add_product(by_row, rows, d, theta, ahead)
        residual, ahead = ahead, residual
    return arrived, _squared_norm(residual, n)


def filled_up(length):
    """A length that the unrolled loops of the passes divide, at least of whole registers."""
    return -(-length // (4 * WIDTH)) * 4 * WIDTH


@compiled
def _cut(length):
    """Where the spans of a length start, and its end, in registers: balanced, for a short span is
    a slow one."""
    vectors = -(-length // WIDTH)
    spans = -(-vectors // MOST_VECTORS)
    starts = np.empty(spans + 1, np.int64)
    for span in range(spans + 1):
        starts[span] = span * vectors // spans
    return starts


@compiled
def fill_spans(A, laid_out, transposed):
    """Write A, or its transpose, in spans of its columns."""
    rows, columns = A.shape
    if transposed:
        rows, columns = columns, rows
    starts = _cut(columns)
    for span in range(len(starts) - 1):
        start, width = starts[span] * WIDTH, (starts[span + 1] - starts[span]) * WIDTH
        for j in range(rows):
            for i in range(min(width, columns - start)):
                entry = A[start + i, j] if transposed else A[j, start + i]
                laid_out[start * rows + j * width + i] = entry


@compiled
def _add_product(by_row, starts, d, theta, residual):
    """Add X theta/sqrt(n) to the residual."""
    for span in range(len(starts) - 1):
        start, vectors = starts[span] * WIDTH, starts[span + 1] - starts[span]
        add_span_product(residual, start, vectors, theta, by_row, start * d, d)


@compiled
def _squared_norm(residual, n):
    """|residual|^2, summed over ascending rows."""
    norm = 0.0
    for j in range(n):
        norm += residual[j] * residual[j]
    return norm

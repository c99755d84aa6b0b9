"""Runs one after the other, compiled: one run, or data of its own for each.

The lanes of a vector register hold neighbouring coordinates here. X and its transpose are laid out
in spans of `SPAN` columns, once a block of steps. The sums run in the same order as in `strips`, so
that a run gets the same bits from both.
"""

from __future__ import annotations

import numpy as np

from dln_momentum.engine.passes import (
    audited_update,
    batch_weights,
    compiled,
    finish_residual,
    inlined,
    squares_difference,
    unsigned,
    update,
)
from dln_momentum.engine.products import SPAN, add_span_product, set_span_product
from dln_momentum.engine.scaled import CHECK_EVERY


@compiled
def advance_singly(
    A, target, beta, w, p, residual_sum, path_sums, products, runs, tolerance, gamma, loss,
    sign_changes, reached_tol, batches, noise, noise_scale, step, steps,
):  # fmt: skip
    """Advance ``runs`` by ``steps`` steps in place, one after the other.

    Args:
        A: X/sqrt(n), [1, n, d] for all runs or [R, n, d].
        target, beta, ..., reached_tol: as in `ScaledProblem` and `State`, for all runs; w, p,
            residual_sum, path_sums and products are flat, the last two empty without an audit.
        runs: which of them, [R_t].
        batches: the rows in each batch, [steps, R_t or 1, |B|] int64, or of no steps.
        noise: label noise, [steps, R_t or 1, n], or of no steps; in ``target`` it is times
            ``noise_scale`` [R_t].
        step: the step that the runs are at.
    """
    total, n = target.shape
    d = A.shape[2]
    by_column, by_row = np.zeros((_spans(d), n, SPAN)), np.zeros((_spans(n), d, SPAN))
    gradient, theta, betas = np.empty(_spans(d) * SPAN), np.empty(d), np.empty(d)
    scratch, flips = np.empty(2 * d), np.empty(d, np.int32)
    residual, ahead = np.empty(_spans(n) * SPAN), np.empty(_spans(n) * SPAN)
    own_target, own_sum = np.zeros(len(residual)), np.zeros(len(residual))
    weights = np.empty(n)
    zero, size = unsigned(0), unsigned(d)
    for place in range(len(runs)):
        run = runs[place]
        plus, minus = unsigned(run * d), unsigned((total + run) * d)
        if place == 0 or len(A) > 1:
            _lay_out(A[run if len(A) > 1 else 0], by_column, by_row)
        for i in range(d):
            betas[i], flips[i] = beta[run], 0
        for j in range(n):
            own_target[j], own_sum[j] = target[run, j], residual_sum[run * n + j]
        for j in range(len(residual)):
            residual[j] = -own_target[j]
        squares_difference(w, theta, plus, minus, zero, size)
        _add_product(by_row, theta, residual)
        for k in range(steps):
            if (step + k) % CHECK_EVERY == 0:
                arrived = _squared_norm(residual, n) <= tolerance[run]
                if arrived and reached_tol[run] < 0:
                    reached_tol[run] = step + k
            if len(noise) > 0:
                drawn = noise[k, place if noise.shape[1] > 1 else 0]
                for j in range(n):
                    residual[j] -= drawn[j] * noise_scale[place]
            if len(batches) > 0:
                batch_weights(batches[k, place if batches.shape[1] > 1 else 0], weights)
                for j in range(n):
                    residual[j] *= weights[j]
            finish_residual(residual, ahead, own_target, own_sum, zero, unsigned(len(residual)))
            for span in range(len(by_column)):
                set_span_product(
                    gradient, span * SPAN, 1, residual, 0, 0, 1, by_column, span * n * SPAN, n
                )
            if len(products) == 0:
                update(w, p, flips, gradient, betas, theta, plus, minus, zero, size)
            else:
                audited_update(
                    w, p, flips, gradient, betas, theta, path_sums, products, scratch,
                    plus, minus, zero, size,
                )  # fmt: skip
            _add_product(by_row, theta, ahead)
            residual, ahead = ahead, residual
        loss[run] = _squared_norm(residual, n) / (2 * gamma[run] ** 2)
        for j in range(n):
            residual_sum[run * n + j] = own_sum[j]
        for i in range(d):
            sign_changes[run] += flips[i]


@inlined
def _spans(length):
    return -(-length // SPAN)


@compiled
def _lay_out(A, by_column, by_row):
    """A in spans of its columns, and its transpose in spans of its rows; the rest stays zero."""
    for j in range(A.shape[0]):
        for i in range(A.shape[1]):
            by_column[i // SPAN, j, i % SPAN] = A[j, i]
            by_row[j // SPAN, i, j % SPAN] = A[j, i]


@inlined
def _add_product(by_row, theta, residual):
    """Add X theta/sqrt(n) to the residual."""
    d = by_row.shape[1]
    for span in range(len(by_row)):
        add_span_product(residual, span * SPAN, 1, theta, 0, 0, 1, by_row, span * d * SPAN, d)


@compiled
def _squared_norm(residual, n):
    """|residual|^2, summed over ascending rows."""
    norm = 0.0
    for j in range(n):
        norm += residual[j] * residual[j]
    return norm

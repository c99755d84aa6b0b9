"""Runs of any member of the family one after the other: the layout of `one_run`.

The sums run in the same order as in `family_block`, so that a run gets the same bits from both.
"""

from __future__ import annotations

import math

import numpy as np

from dln_momentum.engine.cpu.compiled import allocating, apart, compiled, unsigned, zeros, zeros_at
from dln_momentum.engine.cpu.family_carried import PERIOD, FamilyBuffers, FamilyCarried
from dln_momentum.engine.cpu.family_passes import family_update
from dln_momentum.engine.cpu.family_steps import (
    add_decay,
    add_rows,
    apply_slope,
    family_theta,
    lay_out_rates,
    mean_of,
    plus_loss,
    room_for_rates,
    start_residual,
)
from dln_momentum.engine.cpu.one_run import add_product, cut, fill_spans
from dln_momentum.engine.cpu.passes import RUNNING, batch_weights, less_product, verdict
from dln_momentum.engine.cpu.products import set_span_product
from dln_momentum.engine.cpu.registers import LANES, WIDTH
from dln_momentum.engine.family import NESTEROV, SQUARED
from dln_momentum.engine.scaled import CHECK_EVERY


@allocating
def advance_family_runs(
    codes, A, by_column, by_row, matrix, target, depth, rates, carried, endings, drawn, runs, step,
    steps,
):  # fmt: skip
    """Advance ``runs`` by ``steps`` steps, one after the other; see `backends.Kernel`.

    Args:
        codes: `Codes`.
        A, by_column, by_row, matrix: as in `one_run.advance_one_by_one`.
        target: targets or labels of all runs, [R, n].
        depth: D of these runs, [R_t].
        rates: `StepArrays` of these runs.
        carried, endings: `FamilyCarried` and `Endings` of all runs.
        drawn: `Drawn` of these runs.
        runs: which of them, [R_t].
        step: the step that the runs are at.
    """
    n, d = A.shape[1:]
    filled, filled_n = len(by_column) // n, len(by_row) // d
    minus, own_target = apart(filled), zeros(filled_n)
    both = minus + filled
    own = FamilyCarried(
        zeros_at(both, 0), zeros_at(both, 2), zeros(filled_n), zeros(filled_n), zeros_at(both, 4),
        zeros_at(both, 6), zeros(2),
    )  # fmt: skip
    sign_changes = np.zeros(filled, np.int64)
    buffers = FamilyBuffers(
        zeros_at(filled, 7), zeros_at(filled, 7), sign_changes, zeros(6 * PERIOD)
    )
    residual, ahead, weights = zeros(filled_n), zeros(filled_n), np.empty(n)
    columns, rows = cut(d), cut(n)
    laid, lanes = room_for_rates(1)
    for slot in range(len(runs)):
        run = runs[slot]
        if len(A) > 1:
            fill_spans(A[matrix[run]], 1.0, by_column, False)
            fill_spans(A[matrix[run]], 1.0, by_row, True)
        for i in range(d, filled):
            # a coordinate that is not there stays at w = 1, where nothing divides by zero
            for at in (i, minus + i):
                own.w[at], own.p[at] = 1.0, 0.0
                own.sums[at], own.recent_sums[at] = 0.0, 0.0
        for sign in range(2):
            for i in range(d):
                at = sign * minus + i
                own.w[at], own.p[at] = carried.w[sign, run, i], carried.p[sign, run, i]
                own.sums[at] = carried.sums[sign, run, i]
                own.recent_sums[at] = carried.recent_sums[sign, run, i]
        for j in range(n):
            own_target[j], own.residual_sum[j] = target[run, j], carried.residual_sum[run, j]
            own.recent_residual[j] = carried.recent_residual[run, j]
        for i in range(2 if len(carried.decays) > 0 else 0):
            own.decays[i] = carried.decays[run, i]
        status, taken, loss = _take_steps(
            codes, by_column, by_row, columns, rows, n, d, own_target, residual, ahead, weights,
            depth, rates, laid, lanes, own, buffers, endings.tol, endings.ceiling[run], drawn,
            slot, step, steps,
        )  # fmt: skip
        endings.loss[run], endings.status[run] = loss, status
        endings.steps[run] = step + taken
        for i in range(d):
            endings.sign_changes[run] += sign_changes[i]
            sign_changes[i] = 0
        for sign in range(2):
            for i in range(d):
                at = sign * minus + i
                carried.w[sign, run, i], carried.p[sign, run, i] = own.w[at], own.p[at]
                carried.sums[sign, run, i] = own.sums[at]
                carried.recent_sums[sign, run, i] = own.recent_sums[at]
        for j in range(n):
            carried.residual_sum[run, j] = own.residual_sum[j]
            carried.recent_residual[run, j] = own.recent_residual[j]
        for i in range(2 if len(carried.decays) > 0 else 0):
            carried.decays[run, i] = own.decays[i]


@compiled
def _take_steps(
    codes, by_column, by_row, columns, rows, n, d, target, residual, ahead, weights, depth, rates,
    laid, lanes, own, buffers, tol, ceiling, drawn, slot, step, steps,
):  # fmt: skip
    """The steps of a run up to the check that ends it: its status, their number, its last loss."""
    gradient, filled, filled_n = buffers.gradient, len(buffers.theta), len(target)
    minus = unsigned(len(own.w) - filled)
    noise, batches, root = drawn.noise, drawn.batches, math.sqrt(n)
    wide = min(-(-filled // LANES), PERIOD // LANES)
    moving = len(rates.step) > 1
    lay_out_rates(codes, rates, depth, 0, slot, 1, wide, laid, lanes)
    looks = codes.kind == NESTEROV
    _predict(codes, by_row, rows, d, own, looks, buffers, laid, target, residual)
    for k in range(steps):
        if (step + k) % CHECK_EVERY == 0:
            found = residual
            if codes.kind == NESTEROV:
                found = ahead
                _predict(codes, by_row, rows, d, own, False, buffers, laid, target, found)
            loss = _loss(codes.loss, found, target, n, root)
            status = verdict(loss, tol, ceiling)
            if status != RUNNING:
                return status, k, loss
        if codes.loss != SQUARED:
            apply_slope(codes.loss, residual, target, root, 0, n)
        if len(noise) > 0:
            row = noise[k, slot if noise.shape[1] > 1 else 0]
            for j in range(n):
                residual[j] = less_product(residual[j], row[j], drawn.noise_scale[slot])
        if len(batches) > 0:
            batch_weights(batches[k, slot if batches.shape[1] > 1 else 0], weights)
            for j in range(n):
                residual[j] *= weights[j]
        if moving and k > 0:
            lay_out_rates(codes, rates, depth, k, slot, 1, wide, laid, lanes)
        add_rows(
            residual, own.recent_residual, own.residual_sum, lanes.weight[0], lanes.carry[0], n
        )
        add_decay(own.decays, lanes, lanes.carry, 0, 1, codes.decoupled)
        start_residual(codes, ahead, target, 0, filled_n)
        for span in range(len(columns) - 1):
            start, vectors = columns[span] * WIDTH, columns[span + 1] - columns[span]
            set_span_product(gradient, start, vectors, residual, by_column, start * n, n)
        for begin in range(0, filled, PERIOD):
            at, size = unsigned(begin), unsigned(min(PERIOD, filled - begin))
            family_update(codes.kind, own, buffers, laid, at, minus + at, at, unsigned(0), size)
        add_product(by_row, rows, d, buffers.theta, ahead)
        residual, ahead = ahead, residual
    if codes.kind == NESTEROV:
        _predict(codes, by_row, rows, d, own, False, buffers, laid, target, residual)
    return RUNNING, steps, _loss(codes.loss, residual, target, n, root)


@compiled
def _predict(codes, by_row, rows, d, own, looks, buffers, laid, target, residual):
    """The predictions of iterates or points ahead, less the target of the squared loss."""
    start_residual(codes, residual, target, 0, len(residual))
    filled = len(buffers.theta)
    minus = unsigned(len(own.w) - filled)
    for begin in range(0, filled, PERIOD):
        at, size = unsigned(begin), unsigned(min(PERIOD, filled - begin))
        family_theta(codes, own, looks, buffers, laid, at, minus + at, at, unsigned(0), size)
    add_product(by_row, rows, d, buffers.theta, residual)


@compiled
def _loss(loss, residual, target, n, root):
    """The loss, summed over ascending rows."""
    total = 0.0
    for j in range(n):
        total = plus_loss(total, loss, residual[j], target[j], root)
    return mean_of(loss, total, n)

"""What the general kernels do between their products: rates, losses and sums over the rows."""

from __future__ import annotations

import math

from dln_momentum.engine.cpu.compiled import (
    allocating,
    compiled,
    inlined,
    rounded,
    unsigned,
    zeros,
)
from dln_momentum.engine.cpu.family_carried import PERIOD, Laid, Lanes
from dln_momentum.engine.cpu.family_passes import ahead_difference, power_difference, powers
from dln_momentum.engine.cpu.passes import squares_difference
from dln_momentum.engine.cpu.registers import LANES
from dln_momentum.engine.family import LOGISTIC, NESTEROV, POWER, SQUARED


@allocating
def room_for_rates(blocks):
    """`Laid` and `Lanes` for so many blocks of lanes."""
    size, lanes = blocks * PERIOD, blocks * LANES
    laid = Laid(zeros(size), zeros(size), zeros(size), zeros(size), zeros(size), zeros(size))
    return laid, Lanes(zeros(lanes), zeros(lanes), zeros(lanes))


@compiled
def lay_out_rates(codes, rates, depth, k, first, slots, columns, laid, lanes):
    """Write the rates of step k of ``slots`` slots from ``first`` on; columns <= 32 of them.

    Slots beyond the last, and all lanes of a single run, have the rates of the last.
    """
    own = k if len(rates.step) > 1 else 0
    following = min(own + 1, len(rates.step) - 1)
    for lane in range(len(lanes.weight)):
        slot = first + min(lane, slots - 1)
        step, beta, power = rates.step[own, slot], rates.beta[own, slot], 1.0
        decay = rates.decay[own, slot]
        shrink, weight, carry, loss = 0.0, step, beta, decay
        if codes.decoupled:
            shrink, decay, loss = decay, 0.0, -math.log1p(-decay)
            weight, carry = step / (1 - shrink), beta / (1 - shrink)
        if codes.kind == NESTEROV:
            beta = rates.beta[following, slot]
        if codes.kind == POWER:
            step, power = step * depth[slot], depth[slot] - 1
        lanes.weight[lane], lanes.carry[lane], lanes.decay[lane] = weight, carry, loss
        start = lane // LANES * PERIOD + lane % LANES
        laid.step[start], laid.beta[start], laid.carry[start] = step, beta, carry
        laid.decay[start], laid.shrink[start], laid.power[start] = decay, shrink, power
    for start in range(0, len(lanes.weight) // LANES * PERIOD, PERIOD):
        _repeat(laid.step, start, columns)
        _repeat(laid.beta, start, columns)
        _repeat(laid.carry, start, columns)
        # the others are 0 or constant in most runs: what is there already stays
        _repeat_changed(laid.decay, start, columns)
        _repeat_changed(laid.shrink, start, columns)
        _repeat_changed(laid.power, start, columns)


@compiled
def _repeat(rate, start, columns):
    """Write the rates of the lanes once for each column."""
    for c in range(1, columns):
        for lane in range(LANES):
            rate[start + c * LANES + lane] = rate[start + lane]


@compiled
def _repeat_changed(rate, start, columns):
    """The same, where the second column is not there already."""
    for lane in range(LANES if columns > 1 else 0):
        if rate[start + lane] != rate[start + LANES + lane]:
            _repeat(rate, start, columns)
            return


@inlined
def family_theta(codes, carried, ahead, buffers, laid, plus, minus, at, rate, size):
    """theta of stored iterates, or of the points ahead of them that laid.carry gives."""
    values = carried.w
    if ahead:
        theta, past = buffers.theta, carried.p
        ahead_difference(values, past, laid.carry, theta, plus, minus, at, rate, size)
    elif codes.kind == POWER:
        powers(values, plus, buffers.scratch, unsigned(0), laid.power, rate, size)
        powers(values, minus, buffers.scratch, size, laid.power, rate, size)
        power_difference(values, plus, minus, buffers.scratch, unsigned(0), buffers.theta, at, size)
    else:
        squares_difference(values, buffers.theta, plus, minus, at, size)


@compiled
def start_residual(codes, residual, target, start, stop):
    """The residual of theta = 0: what the predictions are added to."""
    for i in range(start, stop):
        residual[i] = -target[i] if codes.loss == SQUARED else 0.0


@rounded
def plus_loss(total, loss, value, label, root):
    """A sum with what one row adds to n times the loss, or to twice it for the squared one."""
    if loss == SQUARED:
        return total + value * value
    margin = label * value * root
    if loss == LOGISTIC:
        return total + (max(-margin, 0.0) + math.log1p(math.exp(-abs(margin))))
    return total + math.exp(-margin)


@inlined
def mean_of(loss, total, n):
    """The loss from its sum over the rows."""
    return total / 2 if loss == SQUARED else total / n


@compiled
def apply_slope(loss, residual, target, root, start, stop):
    """The derivative of a loss of labels, over sqrt(n), in place of the predictions."""
    for i in range(start, stop):
        margin = target[i] * residual[i] * root
        size = 1 / (1 + math.exp(margin)) if loss == LOGISTIC else math.exp(-margin)
        residual[i] = -target[i] * size / root


@rounded
def with_recent(residual, recent, weight, carry):
    """H_k of one row."""
    return weight * residual + carry * recent


@compiled
def add_rows_of_block(residual, recent, sums, weight, carry, start, count):
    """H_k = weight r_k + carry H_{k-1} and its sum, for ``count`` rows of a block of runs."""
    for j in range(count):
        for lane in range(LANES):
            i = start + j * LANES + lane
            recent[i] = with_recent(residual[i], recent[i], weight[lane], carry[lane])
            sums[i] += recent[i]


@compiled
def add_rows(residual, recent, sums, weight, carry, count):
    """The same of one run."""
    for i in range(count):
        recent[i] = with_recent(residual[i], recent[i], weight, carry)
        sums[i] += recent[i]


@compiled
def add_decay(decays, lanes, carries, first, slots, decoupled):
    """The same for the decay: its recent sum and its total, [slots, 2] flat."""
    for lane in range(slots):
        at = 2 * (first + lane)
        if decoupled:
            decays[at + 1] += lanes.decay[lane]
        else:
            decays[at] = lanes.decay[lane] + carries[lane] * decays[at]
            decays[at + 1] += decays[at]

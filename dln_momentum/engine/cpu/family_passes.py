"""The passes of a general step over its coordinates, compiled.

As in `dln_momentum.engine.cpu.passes`: arrays are flat, and neighbouring entries are coordinates of
one run or runs of a SIMD block. A pass takes at most `PERIOD` entries, whose rates start at
``rate``. The sums are the forward form of S_+- (docs/theory.md#forward-form),

    T_k = A_k + carry T_{k-1},    sums += T_k + h_k,

with A_k = r(a_k) + r(1/a_k) and h_k = 1 - 1/a_k, of the step from ``base`` to ``new``, so that
S = sums - ln|w_{K+1}/w_1|. No step takes a logarithm.
"""

from __future__ import annotations

import numpy as np

from dln_momentum.engine.cpu.compiled import compiled, inlined, rounded, unsigned
from dln_momentum.engine.family import NESTEROV, POWER

LARGEST_FACTOR = 1e60
"""Products of iterates up to which, and down to whose inverse, one division serves both signs."""


@rounded
def less_products(a, b, c, d):
    """a b - c d, of which a compiler might round either product with the difference."""
    return a * b - c * d


@inlined
def family_update(kind, carried, buffers, laid, plus, minus, at, rate, size):
    """One step of w_+- and of what is carried with them, the next theta, and sign changes."""
    if kind == NESTEROV:
        nesterov_update(carried, buffers, laid, plus, minus, at, rate, size)
    elif kind == POWER:
        power_update(carried, buffers, laid, plus, minus, at, rate, size)
    else:
        heavy_ball_update(carried, buffers, laid, plus, minus, at, rate, size)


@compiled
def heavy_ball_update(carried, buffers, laid, plus, minus, at, rate, size):
    """d_k = beta d_{k-1} - (+-step g + decay) w_k,  w_{k+1} = (1 - shrink) w_k + d_k.

    Decoupled decay is heavy ball on w_k/c_k, c_{k+1} = (1 - shrink) c_k: there, ``base`` to ``new``
    is the step, since both are times c_{k+1}.
    """
    w, past, scratch = carried.w, carried.p, buffers.scratch
    gradient, theta, sign_changes = buffers.gradient, buffers.theta, buffers.sign_changes
    for i in range(size):
        old_plus, old_minus = w[plus + i], w[minus + i]
        pull = laid.step[rate + i] * gradient[at + i]
        decay, b = laid.decay[rate + i], laid.beta[rate + i]
        base_plus = old_plus - laid.shrink[rate + i] * old_plus
        base_minus = old_minus - laid.shrink[rate + i] * old_minus
        d_plus = less_products(b, past[plus + i], decay + pull, old_plus)
        d_minus = less_products(b, past[minus + i], decay - pull, old_minus)
        new_plus, new_minus = base_plus + d_plus, base_minus + d_minus
        past[plus + i], past[minus + i] = d_plus, d_minus
        w[plus + i], w[minus + i] = new_plus, new_minus
        scratch[i], scratch[size + i] = base_plus, base_minus
        sign_changes[at + i] += np.int64((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int64((new_minus < 0) != (old_minus < 0))
        theta[at + i] = (new_plus - new_minus) * (new_plus + new_minus)
    _add_sums(carried, laid, scratch, plus, minus, rate, size)


@compiled
def _add_sums(carried, laid, scratch, plus, minus, rate, size):
    """The sums of heavy ball, in a loop of its own: compilers give up on too many arrays in one."""
    w, sums, recent, carry = carried.w, carried.sums, carried.recent_sums, laid.carry
    outside = 0
    for i in range(size):
        base_plus, base_minus = scratch[i], scratch[size + i]
        new_plus, new_minus = w[plus + i], w[minus + i]
        dw_plus, dw_minus = new_plus - base_plus, new_minus - base_minus
        both_plus, both_minus = new_plus * base_plus, new_minus * base_minus
        inside = _all_inside(both_plus, both_minus)
        inverse = 1 / (both_plus * both_minus)
        share_plus, share_minus = dw_plus * (inverse * both_minus), dw_minus * (inverse * both_plus)
        t_plus = share_plus * dw_plus + carry[rate + i] * recent[plus + i]
        t_minus = share_minus * dw_minus + carry[rate + i] * recent[minus + i]
        recent[plus + i] = t_plus if inside else recent[plus + i]
        recent[minus + i] = t_minus if inside else recent[minus + i]
        sums[plus + i] += t_plus + share_plus * base_plus if inside else 0.0
        sums[minus + i] += t_minus + share_minus * base_minus if inside else 0.0
        outside += not inside
    for i in range(size if outside > 0 else 0):
        if _all_inside(w[plus + i] * scratch[i], w[minus + i] * scratch[size + i]):
            continue
        for here, there in ((plus, unsigned(0)), (minus, size)):
            base, new = scratch[there + i], w[here + i]
            forward, backward = (new - base) / base, (new - base) / new
            recent[here + i] = forward * backward + carry[rate + i] * recent[here + i]
            sums[here + i] += recent[here + i] + backward


@inlined
def _all_inside(plus, minus):
    """Whether one division may serve both signs."""
    above = (abs(plus) > 1 / LARGEST_FACTOR) & (abs(minus) > 1 / LARGEST_FACTOR)
    return above & (abs(plus) < LARGEST_FACTOR) & (abs(minus) < LARGEST_FACTOR)


@compiled
def nesterov_update(carried, buffers, laid, plus, minus, at, rate, size):
    """z_k = x_k + beta d_{k-1},  d_k = beta d_{k-1} - (+-step g + decay) z_k,  x_{k+1} = x_k + d_k.

    The increments are carried, and not z_k: a rounding of x_{k+1} then enters S_+- once, where one
    of z_k does with the weight p_k.
    """
    x, past, scratch = carried.w, carried.p, buffers.scratch
    gradient, theta, sign_changes = buffers.gradient, buffers.theta, buffers.sign_changes
    for i in range(size):
        pull = laid.step[rate + i] * gradient[at + i]
        decay, b, following = laid.decay[rate + i], laid.carry[rate + i], laid.beta[rate + i]
        x_plus, x_minus, d_plus, d_minus = (
            x[plus + i],
            x[minus + i],
            past[plus + i],
            past[minus + i],
        )
        z_plus, z_minus = x_plus + b * d_plus, x_minus + b * d_minus
        d_plus = less_products(b, d_plus, decay + pull, z_plus)
        d_minus = less_products(b, d_minus, decay - pull, z_minus)
        new_plus, new_minus = x_plus + d_plus, x_minus + d_minus
        ahead_plus, ahead_minus = new_plus + following * d_plus, new_minus + following * d_minus
        scratch[i], scratch[size + i] = x_plus, x_minus
        scratch[2 * size + i], scratch[3 * size + i] = z_plus, z_minus
        x[plus + i], x[minus + i] = new_plus, new_minus
        past[plus + i], past[minus + i] = d_plus, d_minus
        sign_changes[at + i] += np.int64((new_plus < 0) != (x_plus < 0))
        sign_changes[at + i] += np.int64((new_minus < 0) != (x_minus < 0))
        theta[at + i] = (ahead_plus - ahead_minus) * (ahead_plus + ahead_minus)
    _add_nesterov_sums(carried, laid, scratch, plus, minus, rate, size)


@compiled
def ahead_difference(x, past, beta, theta, plus, minus, at, rate, size):
    """theta of the points ahead of stored iterates, as `nesterov_update` has it."""
    for i in range(size):
        ahead_plus = x[plus + i] + beta[rate + i] * past[plus + i]
        ahead_minus = x[minus + i] + beta[rate + i] * past[minus + i]
        theta[at + i] = (ahead_plus - ahead_minus) * (ahead_plus + ahead_minus)


@compiled
def _add_nesterov_sums(carried, laid, scratch, plus, minus, rate, size):
    """A_k = (x_{k+1} - z_k)/z_k + (z_k - x_k)/x_k - h_k,  h_k = (x_{k+1} - x_k)/x_{k+1}."""
    w, sums, recent, carry = carried.w, carried.sums, carried.recent_sums, laid.carry
    outside = 0
    for i in range(size):
        x_plus, x_minus = scratch[i], scratch[size + i]
        z_plus, z_minus = scratch[2 * size + i], scratch[3 * size + i]
        new_plus, new_minus = w[plus + i], w[minus + i]
        # one division for six: 1/z = x new / (x z new)
        all_plus, all_minus = x_plus * z_plus * new_plus, x_minus * z_minus * new_minus
        inside = _all_inside(all_plus, all_minus)
        inverse = 1 / (all_plus * all_minus)
        q_plus, q_minus = inverse * all_minus, inverse * all_plus
        h_plus = (new_plus - x_plus) * (x_plus * z_plus) * q_plus
        h_minus = (new_minus - x_minus) * (x_minus * z_minus) * q_minus
        a_plus = (new_plus - z_plus) * (x_plus * new_plus) * q_plus
        a_plus += (z_plus - x_plus) * (z_plus * new_plus) * q_plus
        a_minus = (new_minus - z_minus) * (x_minus * new_minus) * q_minus
        a_minus += (z_minus - x_minus) * (z_minus * new_minus) * q_minus
        t_plus = (a_plus - h_plus) + carry[rate + i] * recent[plus + i]
        t_minus = (a_minus - h_minus) + carry[rate + i] * recent[minus + i]
        recent[plus + i] = t_plus if inside else recent[plus + i]
        recent[minus + i] = t_minus if inside else recent[minus + i]
        sums[plus + i] += t_plus + h_plus if inside else 0.0
        sums[minus + i] += t_minus + h_minus if inside else 0.0
        outside += not inside
    for i in range(size if outside > 0 else 0):
        all_plus = scratch[i] * scratch[2 * size + i] * w[plus + i]
        if _all_inside(all_plus, scratch[size + i] * scratch[3 * size + i] * w[minus + i]):
            continue
        for here, there in ((plus, unsigned(0)), (minus, size)):
            x, z, new = scratch[there + i], scratch[2 * size + there + i], w[here + i]
            h = (new - x) / new
            term = ((new - z) / z + (z - x) / x) - h
            recent[here + i] = term + carry[rate + i] * recent[here + i]
            sums[here + i] += recent[here + i] + h


@compiled
def power_update(carried, buffers, laid, plus, minus, at, rate, size):
    """Heavy ball on theta = u^D - v^D (docs/theory.md#depth); ``step`` has the factor D.

    A_k = (u_{k+1} - u_k) (u_k^{1-D} - u_{k+1}^{1-D}),  h_k = (u_{k+1} - u_k) u_{k+1}^{1-D}.
    """
    w, past, sums, recent = carried.w, carried.p, carried.sums, carried.recent_sums
    gradient, theta, sign_changes = buffers.gradient, buffers.theta, buffers.sign_changes
    scratch, dw, ahead = buffers.scratch, 2 * size, 4 * size
    powers(w, plus, scratch, unsigned(0), laid.power, rate, size)
    powers(w, minus, scratch, size, laid.power, rate, size)
    for i in range(size):
        old_plus, old_minus = w[plus + i], w[minus + i]
        pull, b = laid.step[rate + i] * gradient[at + i], laid.beta[rate + i]
        d_plus = less_products(b, past[plus + i], pull, scratch[i])
        d_minus = less_products(b, past[minus + i], -pull, scratch[size + i])
        new_plus, new_minus = old_plus + d_plus, old_minus + d_minus
        past[plus + i], past[minus + i] = d_plus, d_minus
        w[plus + i], w[minus + i] = new_plus, new_minus
        scratch[dw + i], scratch[dw + size + i] = new_plus - old_plus, new_minus - old_minus
        sign_changes[at + i] += np.int64((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int64((new_minus < 0) != (old_minus < 0))
    powers(w, plus, scratch, ahead, laid.power, rate, size)
    powers(w, minus, scratch, ahead + size, laid.power, rate, size)
    for i in range(size):
        before_plus, before_minus = 1 / scratch[i], 1 / scratch[size + i]
        after_plus, after_minus = 1 / scratch[ahead + i], 1 / scratch[ahead + size + i]
        dw_plus, dw_minus, c = scratch[dw + i], scratch[dw + size + i], laid.carry[rate + i]
        recent[plus + i] = dw_plus * (before_plus - after_plus) + c * recent[plus + i]
        recent[minus + i] = dw_minus * (before_minus - after_minus) + c * recent[minus + i]
        sums[plus + i] += recent[plus + i] + dw_plus * after_plus
        sums[minus + i] += recent[minus + i] + dw_minus * after_minus
    power_difference(w, plus, minus, scratch, ahead, theta, at, size)


@compiled
def power_difference(w, plus, minus, power, there, theta, at, size):
    """theta = u^D - v^D from the powers D - 1 of both."""
    for i in range(size):
        theta[at + i] = w[plus + i] * power[there + i] - w[minus + i] * power[there + size + i]


@compiled
def powers(w, here, out, there, power, rate, size):
    """w^(D - 1): a product for a whole exponent, so that w may be negative; else of w > 0."""
    first, alike = power[rate], True
    for i in range(size):
        alike &= power[rate + i] == first
    if alike and first == int(first) and first <= 16:
        for i in range(size):
            out[there + i] = w[here + i]
        for _ in range(int(first) - 1):
            for i in range(size):
                out[there + i] *= w[here + i]
        return
    for i in range(size):
        exponent = power[rate + i]
        if exponent == int(exponent) and exponent <= 16:
            product = w[here + i]
            for _ in range(int(exponent) - 1):
                product *= w[here + i]
            out[there + i] = product
        else:
            out[there + i] = w[here + i] ** exponent

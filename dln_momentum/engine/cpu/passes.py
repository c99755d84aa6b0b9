"""The passes of a step over its coordinates, compiled.

Arrays are flat, and each pass works on ``size`` entries from given offsets on: ``plus`` and
``minus`` in `Carried`, for w_+ and w_-, ``at`` in `Buffers`. Whether neighbouring entries are
coordinates of one run or runs of a SIMD block makes no difference here, so that both kinds of
kernel share these passes and give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from dln_momentum.engine.cpu.carried import DIRECT, TELESCOPED
from dln_momentum.engine.cpu.compiled import compiled, inlined, unsigned
from dln_momentum.engine.status import Status

SERIES_BOUND = 0.125
"""|s| up to which the series of `add_path_sums` is used."""

LARGEST_PRODUCT = 1e200
"""Products of two iterates up to which, and down to whose inverse, `telescoped_update` divides by
them: beyond, an increment times another number of their size could leave float64."""

RUNNING, CONVERGED, DIVERGED = (
    int(status) for status in (Status.RUNNING, Status.CONVERGED, Status.DIVERGED)
)


@compiled
def squares_difference(w, theta, plus, minus, at, size):
    """theta' = w_+^2 - w_-^2, as a product: no cancellation, and one way to round it."""
    for i in range(size):
        theta[at + i] = (w[plus + i] - w[minus + i]) * (w[plus + i] + w[minus + i])


@compiled
def update(carried, buffers, plus, minus, at, size):
    """One step of w_+- and p_+-, the next theta', and the sign changes added to their count."""
    w, p, sign_changes = carried.w, carried.p, buffers.sign_changes
    gradient, beta, theta = buffers.gradient, buffers.beta, buffers.theta
    for i in range(size):
        old_plus, old_minus = w[plus + i], w[minus + i]
        p_plus = p[plus + i] - gradient[at + i] * old_plus
        p_minus = p[minus + i] + gradient[at + i] * old_minus
        new_plus = p_plus + beta[at + i] * old_plus
        new_minus = p_minus + beta[at + i] * old_minus
        p[plus + i], p[minus + i] = p_plus, p_minus
        w[plus + i], w[minus + i] = new_plus, new_minus
        sign_changes[at + i] += np.int32((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int32((new_minus < 0) != (old_minus < 0))
        theta[at + i] = (new_plus - new_minus) * (new_plus + new_minus)


@inlined
def chosen_update(summing, carried, buffers, plus, minus, at, size):
    """The step, with S_+- summed as ``summing`` says: see `dln_momentum.engine.cpu.carried`."""
    if summing == TELESCOPED:
        telescoped_update(carried, buffers, plus, minus, at, size)
    elif summing == DIRECT:
        direct_update(carried, buffers, plus, minus, at, size)
    else:
        update(carried, buffers, plus, minus, at, size)


@compiled
def telescoped_update(carried, buffers, plus, minus, at, size):
    """The same step, with the telescoped sum and the products of increments.

        (w_{k+1} - w_k) (1/w_k - beta/w_{k+1})
            = (w_{k+1} - w_k) (w_{k+1} - beta w_k) / (w_k w_{k+1})

    is one division. ``scratch`` keeps w_k for the entries whose product is too large or too small
    to divide by; they take two divisions.
    """
    w, p, sums, products = carried.w, carried.p, carried.sums, carried.products
    gradient, beta, theta = buffers.gradient, buffers.beta, buffers.theta
    sign_changes, scratch = buffers.sign_changes, buffers.scratch
    outside = 0
    for i in range(size):
        old_plus, old_minus, b = w[plus + i], w[minus + i], beta[at + i]
        scratch[i], scratch[size + i] = old_plus, old_minus
        p_plus = p[plus + i] - gradient[at + i] * old_plus
        p_minus = p[minus + i] + gradient[at + i] * old_minus
        new_plus = p_plus + b * old_plus
        new_minus = p_minus + b * old_minus
        p[plus + i], p[minus + i] = p_plus, p_minus
        w[plus + i], w[minus + i] = new_plus, new_minus
        sign_changes[at + i] += np.int32((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int32((new_minus < 0) != (old_minus < 0))
        theta[at + i] = (new_plus - new_minus) * (new_plus + new_minus)
        dw_plus, dw_minus = new_plus - old_plus, new_minus - old_minus
        products[plus + i] += dw_plus * dw_minus
        both_plus, both_minus = new_plus * old_plus, new_minus * old_minus
        inside_plus = 1 / LARGEST_PRODUCT < abs(both_plus) < LARGEST_PRODUCT
        inside_minus = 1 / LARGEST_PRODUCT < abs(both_minus) < LARGEST_PRODUCT
        term_plus = dw_plus * (new_plus - b * old_plus) / both_plus
        term_minus = dw_minus * (new_minus - b * old_minus) / both_minus
        sums[plus + i] += term_plus if inside_plus else 0.0
        sums[minus + i] += term_minus if inside_minus else 0.0
        outside += (not inside_plus) + (not inside_minus)
    if outside > 0:
        _add_outside(w, scratch, beta, sums, plus, unsigned(0), at, size)
        _add_outside(w, scratch, beta, sums, minus, size, at, size)


@compiled
def _add_outside(w, before, beta, sums, here, there, at, size):
    for i in range(size):
        old, new = before[there + i], w[here + i]
        if not 1 / LARGEST_PRODUCT < abs(new * old) < LARGEST_PRODUCT:
            dw = new - old
            sums[here + i] += dw / old - beta[at + i] * (dw / new)


@compiled
def direct_update(carried, buffers, plus, minus, at, size):
    """The same step, with S_+- and the products of increments summed by their definitions."""
    w, p, sums, products = carried.w, carried.p, carried.sums, carried.products
    gradient, beta, theta = buffers.gradient, buffers.beta, buffers.theta
    sign_changes, ahead = buffers.sign_changes, buffers.scratch
    for i in range(size):
        p[plus + i] -= gradient[at + i] * w[plus + i]
        p[minus + i] += gradient[at + i] * w[minus + i]
        ahead[i] = p[plus + i] + beta[at + i] * w[plus + i]
        ahead[size + i] = p[minus + i] + beta[at + i] * w[minus + i]
    add_path_sums(w, ahead, beta, sums, plus, unsigned(0), at, size)
    add_path_sums(w, ahead, beta, sums, minus, size, at, size)
    for i in range(size):
        old_plus, old_minus = w[plus + i], w[minus + i]
        new_plus, new_minus = ahead[i], ahead[size + i]
        w[plus + i], w[minus + i] = new_plus, new_minus
        products[plus + i] += (new_plus - old_plus) * (new_minus - old_minus)
        sign_changes[at + i] += np.int32((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int32((new_minus < 0) != (old_minus < 0))
        theta[at + i] = (new_plus - new_minus) * (new_plus + new_minus)


@compiled
def add_path_sums(w, ahead, beta, sums, here, there, at, size):
    """Add to S the term of the step from w_k (at ``here``) to w_{k+1} (in ``ahead``).

        [r(w_{k+1}/w_k) + beta r(w_k/w_{k+1})] / (1-beta),    r(z) = (z - 1) - ln|z|

    With the increment dw and s = dw/(w_k + w_{k+1}) one has ln(w_{k+1}/w_k) = 2 artanh s, and the
    first order of both r cancels in closed form, with w_k w_{k+1} = (w_k + w_{k+1})^2 (1 - s^2)/4:

        4 s^2 (w_{k+1} + beta w_k) / ((1-beta) (w_k + w_{k+1}) (1 - s^2)) - 2 (artanh s - s)

    That is two divisions and a polynomial, which the compiler vectorises as it does not vectorise
    logarithms; however small the step is, the term keeps its relative accuracy, which
    ``delta - log1p(delta)`` does not; and no product of two w underflows. A large step, or one
    across zero, takes the logarithm.
    """
    large = 0
    for i in range(size):
        old, new = w[here + i], ahead[there + i]
        total = new + old
        s = (new - old) / total
        square = s * s
        # artanh s - s = s^3 (1/3 + s^2/5 + ...): what is left out is below 1e-17 of the first term
        tail = 1 / 19
        for odd in (17, 15, 13, 11, 9, 7, 5, 3):
            tail = tail * square + 1 / odd
        share = (new + beta[at + i] * old) / (total * (1 - square) * (1 - beta[at + i]))
        small = abs(s) <= SERIES_BOUND
        sums[here + i] += square * (4 * share - 2 * s * tail) if small else 0.0
        large += not small
    if large > 0:
        _add_large_steps(w, ahead, beta, sums, here, there, at, size)


@compiled
def _add_large_steps(w, ahead, beta, sums, here, there, at, size):
    for i in range(size):
        old, new = w[here + i], ahead[there + i]
        dw = new - old
        if not abs(dw / (new + old)) <= SERIES_BOUND:
            log_ratio = math.log(abs(new / old))
            forward, backward = dw / old - log_ratio, log_ratio - dw / new
            sums[here + i] += (forward + beta[at + i] * backward) / (1 - beta[at + i])


@compiled
def finish_residual(residual, ahead, target, sums, at, size):
    """Add this step's residual to its sum; the next one starts from minus the target."""
    for i in range(size):
        sums[at + i] += residual[at + i]
        ahead[at + i] = -target[at + i]


@compiled
def batch_weights(batch, weights):
    """How often each of n rows is in a batch, times n / |B|."""
    for j in range(len(weights)):
        weights[j] = 0.0
    for row in batch:
        weights[row] += len(weights) / len(batch)


@compiled
def verdict(loss, tol, ceiling):
    """`Status` of a run by its loss, as `dln_momentum.engine.status.judge` has it."""
    if loss <= tol:
        return CONVERGED
    # nan compares false
    return RUNNING if loss <= ceiling else DIVERGED

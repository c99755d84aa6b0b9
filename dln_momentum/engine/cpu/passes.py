"""The passes of a step over its coordinates, compiled.

Arrays are flat, and each pass works on ``size`` entries from given offsets on: ``plus`` and
``minus`` in `Carried`, for w_+ and w_-, ``at`` in `Buffers`. Whether neighbouring entries are
coordinates of one run or runs of a SIMD block makes no difference here, so that both kinds of
kernel share these passes and give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from dln_momentum.engine.cpu.compiled import compiled, inlined, rounded, unsigned
from dln_momentum.engine.cpu.vector_steps import bare_step, telescoped_step
from dln_momentum.engine.state import DIRECT, TELESCOPED
from dln_momentum.engine.status import Status

SERIES_BOUND = 0.125
"""|s| up to which the series of `add_path_sums` is used."""

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
    bare_step(
        carried.w, carried.p, carried.sums, carried.products, buffers.gradient, buffers.theta,
        buffers.beta, buffers.sign_changes, plus, minus, at, size,
    )  # fmt: skip


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
    """The same step, with the telescoped sum and the products of increments."""
    telescoped_step(
        carried.w, carried.p, carried.sums, carried.products, buffers.gradient, buffers.theta,
        buffers.beta, buffers.sign_changes, plus, minus, at, size,
    )  # fmt: skip


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
        sign_changes[at + i] += np.int64((new_plus < 0) != (old_plus < 0))
        sign_changes[at + i] += np.int64((new_minus < 0) != (old_minus < 0))
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


@rounded
def plus_square(norm, entry):
    """A term of a squared norm."""
    return norm + entry * entry


@rounded
def less_product(entry, drawn, scale):
    """Label noise taken from a residual."""
    return entry - drawn * scale


@compiled
def add_to(sums, terms, at, size):
    """Add entries of one array to those of another."""
    for i in range(size):
        sums[at + i] += terms[at + i]


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

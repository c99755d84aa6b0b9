"""The implicit bias of (stochastic) momentum gradient descent, exact at every step.

From w_0 = w_1, with any gamma, beta and sequence of batch gradients, the path sums

    S_+- = 1/(1-beta) sum_k [ r(w_{+-,k+1}/w_{+-,k}) + beta r(w_{+-,k}/w_{+-,k+1}) ],
    r(z) = (z - 1) - ln|z|,

determine where the iterates go (docs/theory.md#discrete-bias; poster, section 6, with its signs
corrected):

    Delta_inf = Delta_0 exp(-(S_+ + S_-)),
    theta~_0  = (w_{+,0}^2 exp(-2 S_+) - w_{-,0}^2 exp(-2 S_-)) / 4,
    theta_inf = argmin { D_{psi_{Delta_inf}}(theta, theta~_0) : X theta = y }.

With the boundary term ``beta/(1-beta) (1 - w_k/w_{k+1})`` added to S, the same holds of every
iterate: theta_{k+1} minimises D_{psi_{Delta_{k+1}}}(., theta~_0) over its own level set
{X theta = X theta_{k+1}}. The functions take either S or that `S~`, and every tensor is [*runs, d].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.row_space import RowSpace
from dln_momentum.theory.entropy import mirror_map

Pair = Tensor | tuple[Tensor, Tensor]

_ROUNDINGS = 16
"""Ulps that the logarithms and products of two terms, equal in exact arithmetic, may be apart."""


def path_sum_increment(w: Tensor, w_next: Tensor, beta: Tensor | float) -> Tensor:
    """One step's term of S, from its definition (docs/theory.md#path-sums; poster, section 6).

        [r(w_{k+1}/w_k) + beta r(w_k/w_{k+1})] / (1-beta)

    r(z) is formed as ``delta - log1p(delta)`` from the relative increment delta, since
    ``z - 1 - ln z`` loses all digits of a small step. Sign changes of w are allowed.

    Args:
        w: w_{+-,k}, nowhere zero.
        w_next: w_{+-,k+1}, nowhere zero.
        beta: momentum, a number or broadcastable.

    >>> w = torch.tensor([1.0, 1.0], dtype=torch.float64)
    >>> [f"{s:.6f}" for s in path_sum_increment(w, torch.tensor([1.1, -0.5], dtype=w.dtype), 0.5)]
    ['0.013781', '-5.306853']
    """
    step = w_next - w
    forward, backward = step / w, -step / w_next
    log_ratio = log_abs_ratio(w, w_next)
    return ((forward - log_ratio) + beta * (backward + log_ratio)) / (1 - beta)


def telescoped_increment(w: Tensor, w_next: Tensor, beta: Tensor | float) -> Tensor:
    """One step's term of the telescoped sum, (w_{k+1} - w_k) (1/w_k - beta/w_{k+1}).

    (docs/theory.md#telescoped-sum; not on the poster.)

    It is cheaper than `path_sum_increment`, and `telescoped_path_sums` makes S of its sum.

    Args:
        w: w_{+-,k}, nowhere zero.
        w_next: w_{+-,k+1}, nowhere zero.
        beta: momentum, a number or broadcastable.
    """
    step = w_next - w
    return step / w - beta * (step / w_next)


def telescoped_path_sums(
    total: Tensor, w_start: Tensor, w_next: Tensor, beta: Tensor | float
) -> Tensor:
    """S from the telescoped sum: the logarithms of its definition are one.

        sum_k [r(w_{k+1}/w_k) + beta r(w_k/w_{k+1})]
            = sum_k (w_{k+1} - w_k) (1/w_k - beta/w_{k+1}) - (1-beta) ln|w_{K+1}/w_1|

    It takes the iterates and no gradient, so a theorem checked with it can fail. Its absolute
    error is that of the two terms, about 1e-12; of an S far below that no digit is left, which
    `path_sum_increment` would keep.

    Args:
        total: the sum of `telescoped_increment` over the steps.
        w_start: w_{+-,1}.
        w_next: w_{+-,K+1}.
        beta: momentum.

    >>> w = torch.tensor([1.0, 1.25, 1.0, -0.5, 2.0], dtype=torch.float64)
    >>> total = telescoped_increment(w[:-1], w[1:], 0.5).sum()
    >>> s = telescoped_path_sums(total, w[0], w[-1], 0.5)
    >>> torch.allclose(s, path_sum_increment(w[:-1], w[1:], 0.5).sum(), rtol=1e-15)
    True
    """
    return total / (1 - beta) - torch.log((w_next / w_start).abs())


def log_abs_ratio(w: Tensor, w_next: Tensor) -> Tensor:
    """ln|w_{k+1}/w_k|, accurate for a small step and defined across a sign change.

    >>> w = torch.tensor([1.0, 1.0], dtype=torch.float64)
    >>> log_abs_ratio(w, torch.tensor([1 + 2.0**-52, -2.0], dtype=w.dtype)).tolist()
    [2.2204460492503128e-16, 0.6931471805599453]
    """
    delta = (w_next - w) / w
    # past -1/2 there is no small step to keep, and 1 + delta would cancel near a zero of w
    return torch.where(delta > -0.5, torch.log1p(delta), torch.log((w_next / w).abs()))


def boundary_term(w: Tensor, w_next: Tensor, beta: Tensor | float) -> Tensor:
    """beta/(1-beta) (1 - w_k/w_{k+1}), the discrete ``lambda w'/w``; zero at convergence."""
    return beta / (1 - beta) * (w_next - w) / w_next


def path_sums_from_gradients(
    w_0: Tensor,
    w_next: Tensor,
    boundary: Tensor,
    gradient_sum: Tensor,
    eps: Tensor | float,
    sign: int,
) -> Tensor:
    """S_+- read off the accumulated gradient: the finite-step identity.

    (docs/theory.md#finite-step-identity; not on the poster.)

        S_{+-,K} = -+ eps G_K - ln|w_{+-,K+1}/w_{+-,0}| - boundary,    G_K = sum_{k<=K} g_k

    It is an identity of the recursion with constant gamma and beta and w_1 = w_0: it checks the
    directly summed S and is much cheaper, but cannot itself test the theorem.

    Args:
        w_0: w_{+-,0}.
        w_next: w_{+-,K+1}.
        boundary: `boundary_term` at the same step.
        gradient_sum: G_K, the sum of the batch gradients, [*runs, d].
        eps: gamma/(1-beta).
        sign: +1 for S_+, -1 for S_-.
    """
    return -sign * eps * gradient_sum - torch.log((w_next / w_0).abs()) - boundary


def asymptotic_balancedness(balancedness_0: Tensor, s_plus: Tensor, s_minus: Tensor) -> Tensor:
    """Delta_inf = Delta_0 exp(-(S_+ + S_-)); of S~, Delta_k itself.

    (docs/theory.md#discrete-limit and docs/theory.md#along-the-path; poster, section 6.)
    """
    return balancedness_0 * torch.exp(-(s_plus + s_minus))


def log_init(w_plus_0: Tensor, w_minus_0: Tensor, s_plus: Tensor, s_minus: Tensor) -> Tensor:
    """The perturbed initialisation theta~_0 in log form, c = arcsinh(2 theta~_0/Delta_inf).

    (docs/theory.md#log-form; poster, section 6.)

        c = ln|w_{+,0}| - S_+ - ln|w_{-,0}| + S_-

    After sign changes theta~_0 itself can reach 1e20 while c stays below 100: c is what the
    minimiser and the certificate take.
    """
    return torch.log((w_plus_0 / w_minus_0).abs()) - s_plus + s_minus


def is_potential(balancedness: Tensor, log_init: Tensor) -> Tensor:
    """Where (Delta, c) define a potential: 0 < Delta < inf and c finite, [*runs] bool.

    A Delta below the least normal number has lost digits, and counts as 0.

    >>> delta = torch.tensor([[1e-300], [1e-310], [0.0]], dtype=torch.float64)
    >>> is_potential(delta, torch.zeros_like(delta)).tolist()
    [True, False, False]
    """
    least = torch.finfo(balancedness.dtype).tiny
    positive = (balancedness >= least) & balancedness.isfinite()
    return (positive & log_init.isfinite()).all(-1)


def log_perturbed_init_norm(balancedness: Tensor, log_init: Tensor) -> Tensor:
    """ln ||theta~_0||_2, [*runs], of theta~_0 = Delta/2 sinh(c); -inf where theta~_0 = 0.

    >>> log_perturbed_init_norm(torch.tensor([2.0]), torch.tensor([1000.0]))
    tensor(999.3069)
    """
    c = log_init.abs()
    # ln sinh c = c + ln(1 - e^{-2c}) - ln 2, which neither overflows nor cancels
    log_entries = torch.log(balancedness) + c + torch.log(-torch.expm1(-2 * c)) - math.log(4)
    return torch.logsumexp(2 * log_entries, -1) / 2


def kkt_residual(
    row_space: RowSpace, theta: Tensor, balancedness: Tensor, log_init: Tensor
) -> Tensor:
    """How far theta is from minimising D_{psi_Delta}(., theta~_0) on its level set, [*runs].

    (docs/theory.md#certificate; not on the poster.)

    theta is the minimiser exactly when ``z = (arcsinh(2 theta/Delta) - c)/2`` lies in
    span(x_1..x_n). The residual is the norm of z's component outside the span relative to the
    norm of z: a certificate that needs one projection and no solver. It is 0 where z is 0 to the
    rounding of its two terms, as at the start of a run, where theta is theta~_0 itself.

    Args:
        row_space: span(x_1..x_n) in R^d.
        theta: the predictor, [*runs, d].
        balancedness: Delta, positive, [*runs, d].
        log_init: c, [*runs, d].

    Raises:
        InputError: if ``balancedness`` is not finite and positive.

    >>> rows = RowSpace.of(torch.tensor([[3.0, 4.0]]))
    >>> one, theta = torch.ones(2), torch.tensor([0.5, 0.0])
    >>> [kkt_residual(rows, theta, one, c) for c in (0 * one, torch.asinh(2 * theta))]
    [tensor(0.8000), tensor(0.)]
    """
    return relative_distance(row_space, mirror_map(theta, balancedness), log_init / 2)


def relative_distance(row_space: RowSpace, mirror: Tensor, start: Tensor) -> Tensor:
    """The norm of z = mirror - start outside span(x_1..x_n), relative to that of z, [*runs].

    It is 0 where z is 0 to the rounding of its two terms, [*runs, d] each.
    """
    z = mirror - start
    outside, norm, *terms = (
        torch.linalg.vector_norm(x, dim=-1) for x in (row_space.reject(z), z, mirror, start)
    )
    rounding = _ROUNDINGS * torch.finfo(z.dtype).eps * (terms[0] + terms[1])
    return torch.where(norm > rounding, outside / norm, torch.where(norm.isnan(), norm, 0.0))


def log_free_balance(
    w_start: Pair,
    w: Pair,
    w_next: Pair,
    increment_products: Tensor,
    beta: Tensor | float,
    initial_increment: Pair | None = None,
) -> Tensor:
    """u^2 - v^2 at step K+1 from the products of increments: no logarithm, no singularity.

    (docs/theory.md#log-free-identity; not on the poster.)

        q_{K+1} = q_1 + 1/(1-beta) { (1+beta) sum_{k<=K} (du_k^2 - dv_k^2)
                      - beta [ w_+ dw_- + w_- dw_+ ]_{K+1} + beta [ w_+ dw_- + w_- dw_+ ]_1 }

    where q = u^2 - v^2, du = u_{k+1} - u_k and du^2 - dv^2 = dw_+ dw_-. The first bracket, at
    w_{K+1} and the last increment, vanishes at convergence; the other, at w_1 and w_1 - w_0, is 0
    at rest.

    Args:
        w_start, w, w_next: (w_+, w_-) at steps 1, K and K+1, as a pair or stacked [2, *runs, d].
        increment_products: sum of dw_+ dw_- up to the last step, [*runs, d].
        beta: momentum.
        initial_increment: w_1 - w_0 of w_+ and w_-; None at rest.
    """
    last = (w_next[0] - w[0], w_next[1] - w[1])
    brackets = -_bracket(w_next, last)
    if initial_increment is not None:
        brackets = brackets + _bracket(w_start, initial_increment)
    change = (1 + beta) * increment_products + beta * brackets
    return w_start[0] * w_start[1] + change / (1 - beta)


def _bracket(w: Pair, increment: Pair) -> Tensor:
    return w[0] * increment[1] + w[1] * increment[0]

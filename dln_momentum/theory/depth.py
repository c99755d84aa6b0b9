r"""Networks of depth D > 2, theta = u^D - v^D with u, v > 0: the potential that training minimises.

With m = D - 2, for real D > 2 (docs/theory.md#depth; not on the poster),

    h_A(z) = (A + z)^(-D/m) - (A - z)^(-D/m),    |z| < A,

and theta_K minimises the divergence of a potential H_A with gradient ``-h_A^{-1}(theta)/m``, from
h_A(c), over its own level set; A > 0 and |c| < A come from the start and the path sums. As D -> 2,
H_A tends to the hyperbolic entropy psi_Delta of ``Delta = 4 A^(-2/m)``.

All is computed in a coordinate r with z = -A tanh r, which keeps its digits for tiny and for huge
theta:

    theta = 2 A^(-p) cosh(r)^p sinh(p r),    p = D/m.

Vectors are [*runs, d]; D is a number or broadcasts with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.row_space import RowSpace
from dln_momentum.theory.discrete_bias import Pair, relative_distance

_SERIES_TERMS = 20
_NEWTON_STEPS = 60
_LARGE = 30.0
"""Above this argument arcsinh is a logarithm to rounding."""


def potential_scale(w_start: Pair, path_sums: Pair, depth: Tensor | float) -> tuple[Tensor, Tensor]:
    """A and c from the start and the path sums (docs/theory.md#depth), [*runs, d] each.

        A_+ = u_1^(-m) + m S_u,   A_- = v_1^(-m) + m S_v,   A = (A_+ + A_-)/2,   c = (A_+ - A_-)/2

    At step K+1, ``u^(-m) + v^(-m) = 2 A``.

    Args:
        w_start: u_1 and v_1, positive.
        path_sums: S_u and S_v, `path_sum_increment` summed, less the term of the initial speed.
        depth: D.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> [x.item() for x in potential_scale((one / 2, one / 4), (one, one), 3.0)]
    [4.0, -1.0]
    """
    m = _excess(depth)
    # the half sum and difference first: no overflow of the sum
    plus, minus = (w**-m / 2 + m / 2 * s for w, s in zip(w_start, path_sums, strict=True))
    return plus + minus, plus - minus


def balancedness(scale: Tensor, depth: Tensor | float) -> Tensor:
    """Delta = 4 A^(-2/m), [*runs, d]: 4 u^2 of the layers u = v at theta = 0.

    It tends to the Delta = 4 |u v| of theta = u^2 - v^2 as D -> 2.
    """
    return 4 * scale ** (-2 / _excess(depth))


def layer_divergence(w: Tensor, w_next: Tensor, depth: Tensor | float) -> Tensor:
    """R(a, b) = (b - a) phi'(a) - (phi(b) - phi(a)) of phi(u) = -u^(-m)/m, nonnegative.

    It is r(b/a) as D -> 2. It is formed as a^(-m) [e(x) + e(-m x)/m] with x = ln(b/a) and
    e(x) = exp(x) - 1 - x, two nonnegative terms.

    Args:
        w: a > 0.
        w_next: b > 0.
        depth: D.

    >>> a, b = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> layer_divergence(a, b, 3.0), layer_divergence(a, a * (1 + 1e-9), 3.0)
    (tensor([0.5000], dtype=torch.float64), tensor([1.0000e-18], dtype=torch.float64))
    """
    m = _excess(depth)
    x = torch.log1p((w_next - w) / w)
    return w**-m * (_exp_remainder(x) + _exp_remainder(-m * x) / m)


def path_sum_increment(w: Tensor, w_next: Tensor, weight: Tensor | float, depth: float) -> Tensor:
    """One step's term of S, p_k R(w_k, w_{k+1}) + (p_k - 1) R(w_{k+1}, w_k).

    (docs/theory.md#depth.)

    Args:
        w, w_next: u_k and u_{k+1}, or v; positive.
        weight: p_k, a number or broadcastable.
        depth: D.
    """
    forward = layer_divergence(w, w_next, depth)
    return weight * forward + (weight - 1) * layer_divergence(w_next, w, depth)


def power_predictor(z: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    """h_A(z) = (A + z)^(-D/m) - (A - z)^(-D/m), decreasing and odd, for |z| < A; [*runs, d].

    >>> power_predictor(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0]), 4.0)  # 1 - 1/9
    tensor([0.0000, 0.8889])
    """
    return predictor_at(torch.atanh(-z / scale), scale, depth)


def power_mirror(theta: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    """h_A^{-1}(theta), in (-A, A), [*runs, d]; odd and decreasing in theta.

    >>> theta, A = torch.tensor([0.0, 8 / 9]), torch.tensor([1.0, 2.0])
    >>> power_mirror(theta, A, 4.0)
    tensor([-0., -1.])
    """
    return -scale * torch.tanh(mirror_coordinate(theta, scale, depth))


def power_potential(theta: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    """H_A(theta), [*runs], with H_A(0) = 0 and gradient -h_A^{-1}(theta)/m; psi_Delta as D -> 2.

    >>> A = torch.ones(1, dtype=torch.float64)
    >>> round(power_potential(A, 2**0.001 * A, 2.002).item(), 2)  # psi at Delta = 2 is 0.23
    0.23
    """
    return power_divergence(theta, torch.zeros_like(theta), scale, depth)


def power_divergence(a: Tensor, b: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    r"""The Bregman divergence of H_A between a and b, [*runs]; 0 only for a = b.

    With the layers U, V of a and b (U^(-m) + V^(-m) = 2A, theta = U^D - V^D) and x = ln(W_a/W_b),

    .. math:: D_{H_A}(a, b) = \sum_i \sum_{W = U, V} W_a^2 [e(m x)/m + e(-2 x)/2],
        \qquad e(x) = \exp x - 1 - x,

    four nonnegative terms, which do not cancel for a close to b.

    >>> A = torch.ones(2, dtype=torch.float64)
    >>> a, b = torch.tensor([[1.0, 2.0], [1.0, 2.0 + 1e-9]], dtype=torch.float64)
    >>> f"{power_divergence(a, b, A, 3.0):.3e}"
    '4.409e-20'
    """
    m = _excess(depth)
    r_a, r_b = (mirror_coordinate(t, scale, depth) for t in (a, b))
    total = torch.zeros_like(r_a)
    for sign in (1, -1):
        # ln(W/A^(-1/m)) = L(+-r)/m, L(r) = r + ln cosh r
        log_a, log_b = (log_gap(sign * r) / m for r in (r_a, r_b))
        x = log_a - log_b
        terms = _exp_remainder(m * x) / m + _exp_remainder(-2 * x) / 2
        total = total + torch.exp(2 * (log_a - torch.log(scale) / m)) * terms
    return total.sum(-1)


def power_kkt_residual(
    row_space: RowSpace, theta: Tensor, scale: Tensor, log_init: Tensor, depth: Tensor | float
) -> Tensor:
    """How far theta is from minimising D_{H_A}(., h_A(c)) on its level set, [*runs].

    The norm of the component of z = h_A^{-1}(theta) - c outside span(x_1..x_n), over that of z;
    0 where z is 0 to rounding (docs/theory.md#depth).

    Args:
        row_space: span(x_1..x_n).
        theta: predictor, [*runs, d].
        scale, log_init: A and c, [*runs, d].
        depth: D.

    Raises:
        InputError: unless A is finite and positive and |c| < A.
    """
    raise_if_any(scale_errors(scale, log_init))
    return relative_distance(row_space, power_mirror(theta, scale, depth), log_init)


def scale_errors(scale: Tensor, log_init: Tensor) -> Iterator[str]:
    """Errors of A and c."""
    if not bool((scale.isfinite() & (scale > 0)).all()):
        yield "scale: A must be finite and > 0 in every entry"
    elif not bool((log_init.abs() < scale).all()):
        yield "log_init: |c| must be below A in every entry"


def is_power_potential(scale: Tensor, log_init: Tensor) -> Tensor:
    """Where (A, c) define a potential: 0 < A < inf and |c| < A, [*runs] bool."""
    return ((scale > 0) & scale.isfinite() & (log_init.abs() < scale)).all(-1)


def predictor_at(r: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    """theta = 2 A^(-p) cosh(r)^p sinh(p r) of the coordinate r."""
    p = power_of(depth)
    size = r.abs()
    large = torch.exp(p * (log_gap(size) - torch.log(scale)))
    return torch.sign(r) * large * -torch.expm1(-2 * p * size)


def mirror_coordinate(theta: Tensor, scale: Tensor, depth: Tensor | float) -> Tensor:
    """The r with ``theta = 2 A^(-p) cosh(r)^p sinh(p r)``, [*runs, d].

    Newton's method for ``arcsinh(cosh(r)^p sinh(p r)) = arcsinh(theta A^p/2)``, whose left side has
    slopes between p and 2p, inside a bracket.
    """
    p = power_of(depth)
    size = theta.abs()
    ratio = size * scale**p / 2
    log_ratio = torch.log(size) + p * torch.log(scale)
    usable = ratio.isfinite() & (scale**p > 0) & (scale**p < math.inf)
    ratio = torch.where(usable, ratio, torch.exp(log_ratio.clamp(max=2 * _LARGE)) / 2)
    target = torch.where(log_ratio > _LARGE, log_ratio, torch.asinh(ratio))
    low, high = torch.zeros_like(target), target / p
    r = high.clone()
    for _ in range(_NEWTON_STEPS):
        value, slope = _stretched(r, p)
        excess = value - target
        low, high = torch.where(excess < 0, r, low), torch.where(excess >= 0, r, high)
        new = r - excess / slope
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        done = (new - r).abs() <= 2 * torch.finfo(r.dtype).eps * r
        r = torch.where(target.isfinite(), new, target)
        if bool((done | ~target.isfinite()).all()):
            break
    return torch.sign(theta) * r


def log_gap(r: Tensor) -> Tensor:
    """L(r) = r + ln cosh r = -ln(1 - tanh r), accurate for either sign and any size."""
    size = r.abs()
    small = torch.log1p(2 * torch.sinh(size / 2).square())
    log_cosh = torch.where(size < 1, small, size + torch.log1p(torch.exp(-2 * size)) - math.log(2))
    # at large negative r the two terms cancel
    return torch.where(r < -1, torch.log1p(torch.exp(-2 * size)) - math.log(2), r + log_cosh)


def power_of(depth: Tensor | float) -> Tensor | float:
    """p = D/(D - 2)."""
    return depth / _excess(depth)


def _stretched(r: Tensor, p: Tensor | float) -> tuple[Tensor, Tensor]:
    """arcsinh(cosh(r)^p sinh(p r)) and its derivative, r >= 0."""
    exponent = p * log_gap(r)
    small = exponent.clamp(max=_LARGE)
    decay = torch.exp(-2 * p * r)
    value = torch.exp(small) / 2 * -torch.expm1(-2 * p * r)
    tanh = torch.tanh(r)
    slope = p * torch.exp(small) / 2 * (1 + decay - tanh * torch.expm1(-2 * p * r))
    slope = slope / torch.hypot(value, torch.ones_like(value))
    large = exponent > _LARGE
    log_value = exponent + torch.log1p(-torch.where(large, decay, 0.0))
    return torch.where(large, log_value, torch.asinh(value)), torch.where(
        large, p * (1 + tanh), slope
    )


def _exp_remainder(x: Tensor) -> Tensor:
    """exp(x) - 1 - x >= 0, accurate for small x."""
    near = x.clamp(-1, 1)
    series = torch.zeros_like(near)
    for k in range(_SERIES_TERMS, 1, -1):
        series = (1 + series) * near / k
    return torch.where(x.abs() < 1, series * near, torch.expm1(x) - x)


def _excess(depth: Tensor | float) -> Tensor | float:
    """m = D - 2.

    Raises:
        InputError: unless every D is finite and above 2.
    """
    values = torch.as_tensor(depth, dtype=torch.float64)
    if not bool((values.isfinite() & (values > 2)).all()):
        raise InputError(f"depth = {depth} must be finite and > 2; theta = u v is depth 2")
    return depth - 2

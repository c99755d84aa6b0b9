"""The hyperbolic entropy psi_Delta, its mirror map and its Bregman divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any

# Above this gap of the mirror images no digit is lost by the difference of the potentials, and
# below it the series for exp needs few terms.
_SERIES_GAP = 1.0
_SERIES_TERMS = 20


def hyperbolic_entropy(theta: Tensor, balancedness: Tensor) -> Tensor:
    r"""The potential whose minimiser the training converges to.

    .. math:: \psi_\Delta(\theta) = \tfrac14 \sum_i \Big(2\theta_i \operatorname{arcsinh}
        \frac{2\theta_i}{\Delta_i} - \sqrt{4\theta_i^2 + \Delta_i^2} + \Delta_i\Big)

    (docs/theory.md#potentials; poster, section 3). It behaves as
    :math:`\ln(1/\Delta)/2 \, \|\theta\|_1` for small and as
    :math:`\sum_i \theta_i^2 / (2\Delta_i)` for large balancedness. Relative error of a few ulp for
    balancedness from 1e-200 to 1e200 and \|theta\|/Delta up to 1e300.

    Args:
        theta: Predictor, [*runs, d].
        balancedness: Delta, positive, broadcasts with ``theta``.

    Returns:
        The potential, [*runs].

    Raises:
        InputError: If ``balancedness`` is not finite and positive.

    >>> one = torch.ones(2, dtype=torch.float64)
    >>> hyperbolic_entropy(one, 2 * one)
    tensor(0.4672, dtype=torch.float64)
    """
    x = 2 * theta / checked_balancedness(balancedness)
    # sqrt(1 + x^2) - 1 over x, in the form that does not cancel for small x
    half_tangent = x / (1 + torch.hypot(torch.ones_like(x), x))
    return (theta / 2 * (torch.asinh(x) - half_tangent)).sum(-1)


def mirror_map(theta: Tensor, balancedness: Tensor) -> Tensor:
    r"""The gradient of the hyperbolic entropy, 1/2 arcsinh(2 theta/Delta).

    Args:
        theta: Predictor, [*runs, d].
        balancedness: Delta, positive, broadcasts with ``theta``.

    Returns:
        The mirror image, [*runs, d].

    Raises:
        InputError: If ``balancedness`` is not finite and positive.

    >>> one = torch.ones((), dtype=torch.float64)
    >>> mirror_map(one, 2 * one)
    tensor(0.4407, dtype=torch.float64)
    """
    return torch.asinh(2 * theta / checked_balancedness(balancedness)) / 2


def inverse_mirror_map(z: Tensor, balancedness: Tensor) -> Tensor:
    r"""The predictor with mirror image z, Delta/2 sinh(2 z).

    It overflows only where the result itself does.

    Args:
        z: Mirror image, [*runs, d].
        balancedness: Delta, positive, broadcasts with ``z``.

    Returns:
        The predictor, [*runs, d].

    Raises:
        InputError: If ``balancedness`` is not finite and positive.

    >>> z, delta = torch.tensor([400.0, 1e-200], dtype=torch.float64)
    >>> inverse_mirror_map(z, delta)
    tensor(6.8159e+146, dtype=torch.float64)
    """
    # sinh(2z) = 2 sinh(z) cosh(z): the two factors stay finite to |z| = 710
    return checked_balancedness(balancedness) * torch.sinh(z) * torch.cosh(z)


def bregman_divergence(a: Tensor, b: Tensor, balancedness: Tensor) -> Tensor:
    r"""The Bregman divergence of the hyperbolic entropy.

    .. math:: D_{\psi_\Delta}(a, b) = \psi_\Delta(a) - \psi_\Delta(b)
        - \langle \nabla\psi_\Delta(b), a - b \rangle

    (docs/theory.md#potentials; poster, section 3). With :math:`p` and :math:`q` the
    arcsinh of :math:`2a/\Delta` and :math:`2b/\Delta`, and :math:`h = p - q`, a coordinate with
    :math:`p \ge 0` contributes

    .. math:: \tfrac{\Delta}{4}\big[\sinh p \, (e^{-h} - 1 + h) + 2 e^{-p} \sinh^2(h/2)\big],

    two terms that are never negative, so that a near b costs no digits.

    Args:
        a: First point, [*runs, d].
        b: Second point, [*runs, d].
        balancedness: Delta, positive, broadcasts with both.

    Returns:
        The divergence, [*runs], zero only for a = b.

    Raises:
        InputError: If ``balancedness`` is not finite and positive.

    >>> a, b = torch.tensor([[1.0, 2.0], [1.0, 2.0 + 1e-9]], dtype=torch.float64)
    >>> bregman_divergence(a, b, torch.ones_like(a))
    tensor(1.2127e-19, dtype=torch.float64)
    """
    half = checked_balancedness(balancedness) / 2
    length_a, length_b = torch.hypot(a, half), torch.hypot(b, half)
    gap = _mirror_gap(a, b, half, length_a, length_b)
    far = (gap * a - length_a + length_b) / 2
    outward = torch.where(a < 0, -gap, gap)
    # one factor of the gap at a time: its square alone underflows below 1e-154
    half_sinh = torch.sinh(gap / 2)
    near = (a.abs() / 2 * outward) * _exp_remainder_over_h(outward)
    near = near + half * (half / (length_a + a.abs())) * half_sinh * half_sinh
    return torch.where(gap.abs() > _SERIES_GAP, far, near).sum(-1)


def checked_balancedness(balancedness: Tensor) -> Tensor:
    """Return the balancedness, or refuse it where it is not finite and positive.

    Args:
        balancedness: Delta, any shape.

    Returns:
        The same tensor.

    Raises:
        InputError: If an entry is zero, negative, infinite or not a number.
    """
    valid = (balancedness > 0) & torch.isfinite(balancedness)
    if not bool(valid.all()):
        worst = balancedness[~valid].flatten()[0].item()
        raise_if_any([f"balancedness = {worst} must be finite and > 0"])
    return balancedness


def _mirror_gap(a: Tensor, b: Tensor, half: Tensor, length_a: Tensor, length_b: Tensor) -> Tensor:
    """arcsinh(a/half) - arcsinh(b/half) without cancellation.

    For equal signs sinh of it is (a - b) over the mean of the two lengths with weights a and b.
    """
    total = a + b
    opposite = torch.sign(a) * torch.sign(b) <= 0
    safe_total = torch.where(opposite, 1.0, total)
    mean = (a / safe_total) * length_b + (b / safe_total) * length_a
    same_side = torch.asinh((a - b) / torch.where(opposite, 1.0, mean))
    return torch.where(opposite, torch.asinh(a / half) - torch.asinh(b / half), same_side)


def _exp_remainder_over_h(h: Tensor) -> Tensor:
    """(exp(-h) - 1 + h) / h by its series, for |h| <= 1."""
    series = torch.ones_like(h)
    for k in range(_SERIES_TERMS, 2, -1):
        series = 1 - h * series / k
    return h / 2 * series

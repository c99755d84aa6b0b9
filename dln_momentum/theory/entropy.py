"""The hyperbolic entropy psi_Delta, its mirror map and its Bregman divergence.

Vectors are [*runs, d], and the balancedness Delta broadcasts with them. Every function raises
`InputError` if Delta is not finite and positive.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.errors import InputError

# The difference of the potentials loses no digit if the mirror images are farther apart than this;
# for closer ones the series of exp needs few terms.
_SERIES_DISTANCE = 1.0
_SERIES_TERMS = 20


def hyperbolic_entropy(theta: Tensor, balancedness: Tensor) -> Tensor:
    r"""The hyperbolic entropy, [*runs], whose divergence training minimises.

    .. math:: \psi_\Delta(\theta) = \tfrac14 \sum_i \Big(2\theta_i \operatorname{arcsinh}
        \frac{2\theta_i}{\Delta_i} - \sqrt{4\theta_i^2 + \Delta_i^2} + \Delta_i\Big)

    (docs/theory.md#potentials; poster, section 3). It behaves as
    :math:`\ln(1/\Delta)/2 \, \|\theta\|_1` for small and as
    :math:`\sum_i \theta_i^2 / (2\Delta_i)` for large balancedness. The relative error is a few ulp
    for balancedness from 1e-200 to 1e200 and \|theta\|/Delta up to 1e300.

    >>> one = torch.ones(2, dtype=torch.float64)
    >>> hyperbolic_entropy(one, 2 * one)
    tensor(0.4672, dtype=torch.float64)
    """
    x = 2 * theta / checked_balancedness(balancedness)
    # sqrt(1 + x^2) - 1 over x, in the form that does not cancel for small x
    half_tangent = x / (1 + torch.hypot(torch.ones_like(x), x))
    return (theta / 2 * (torch.asinh(x) - half_tangent)).sum(-1)


def mirror_map(theta: Tensor, balancedness: Tensor) -> Tensor:
    """The gradient of the hyperbolic entropy, 1/2 arcsinh(2 theta/Delta), [*runs, d].

    >>> one = torch.ones((), dtype=torch.float64)
    >>> mirror_map(one, 2 * one)
    tensor(0.4407, dtype=torch.float64)
    """
    return torch.asinh(2 * theta / checked_balancedness(balancedness)) / 2


def inverse_mirror_map(z: Tensor, balancedness: Tensor) -> Tensor:
    """The predictor with mirror image z, Delta/2 sinh(2 z), [*runs, d].

    It overflows only where the result itself does.

    >>> z, delta = torch.tensor([400.0, 1e-200], dtype=torch.float64)
    >>> inverse_mirror_map(z, delta)
    tensor(6.8159e+146, dtype=torch.float64)
    """
    # sinh(2z) = 2 sinh(z) cosh(z): the two factors stay finite to |z| = 710
    return checked_balancedness(balancedness) * torch.sinh(z) * torch.cosh(z)


def bregman_divergence(a: Tensor, b: Tensor, balancedness: Tensor) -> Tensor:
    r"""The Bregman divergence of the hyperbolic entropy, [*runs]; it is 0 only for a = b.

    .. math:: D_{\psi_\Delta}(a, b) = \psi_\Delta(a) - \psi_\Delta(b)
        - \langle \nabla\psi_\Delta(b), a - b \rangle

    (docs/theory.md#potentials; poster, section 3). With :math:`p` and :math:`q` the
    arcsinh of :math:`2a/\Delta` and :math:`2b/\Delta`, and :math:`h = p - q`, a coordinate with
    :math:`p \ge 0` contributes

    .. math:: \tfrac{\Delta}{4}\big[\sinh p \, (e^{-h} - 1 + h) + 2 e^{-p} \sinh^2(h/2)\big],

    two nonnegative terms, which do not cancel for a close to b.

    >>> a, b = torch.tensor([[1.0, 2.0], [1.0, 2.0 + 1e-9]], dtype=torch.float64)
    >>> bregman_divergence(a, b, torch.ones_like(a))
    tensor(1.2127e-19, dtype=torch.float64)
    """
    half = checked_balancedness(balancedness) / 2
    length_a, length_b = torch.hypot(a, half), torch.hypot(b, half)
    difference = _mirror_difference(a, b, half, length_a, length_b)
    far = (difference * a - length_a + length_b) / 2
    h = torch.where(a < 0, -difference, difference)
    # one factor of the difference at a time: its square alone underflows below 1e-154
    half_sinh = torch.sinh(difference / 2)
    near = (a.abs() / 2 * h) * _exp_remainder_over_h(h)
    near = near + half * (half / (length_a + a.abs())) * half_sinh * half_sinh
    return torch.where(difference.abs() > _SERIES_DISTANCE, far, near).sum(-1)


def checked_balancedness(balancedness: Tensor) -> Tensor:
    """The balancedness itself.

    Raises:
        InputError: if an entry is zero, negative, infinite or NaN.
    """
    valid = (balancedness > 0) & torch.isfinite(balancedness)
    if not bool(valid.all()):
        worst = balancedness[~valid].flatten()[0].item()
        raise InputError(f"balancedness = {worst} must be finite and > 0")
    return balancedness


def _mirror_difference(
    a: Tensor, b: Tensor, half: Tensor, length_a: Tensor, length_b: Tensor
) -> Tensor:
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

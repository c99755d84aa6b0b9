"""The losses of a row: squared, logistic and exponential.

A loss is a mean over the rows of l(p_i, y_i), p = X theta, so that its gradient is

    grad L(theta) = X^T l'(X theta, y) / n,

a combination of rows whatever l is: all that the theorems on the implicit bias need of it
(docs/theory.md#other-losses). Vectors of predictions and labels are [*runs, n].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OfRow = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss of a prediction p and a label y, with its first two derivatives in p, elementwise.

    Attributes:
        name: as ``Problem(loss=...)`` and the configs have it.
        value: l(p, y).
        slope: dl/dp.
        curvature: d^2l/dp^2.
        is_classification: whether labels are -1 and +1, and l falls with the margin y p.
    """

    name: str
    value: OfRow
    slope: OfRow
    curvature: OfRow
    is_classification: bool

    def __repr__(self) -> str:
        return f"Loss({self.name})"


def logistic(p: Tensor, y: Tensor) -> Tensor:
    """ln(1 + exp(-y p)), accurate for margins of either sign and any size.

    >>> p = torch.tensor([-1000.0, 0.0, 40.0, 700.0], dtype=torch.float64)
    >>> [f"{x:.6g}" for x in logistic(p, torch.ones_like(p)).tolist()]
    ['1000', '0.693147', '4.24835e-18', '9.85968e-305']
    """
    margin = y * p
    return torch.logaddexp(torch.zeros_like(margin), -margin)


def _exponential(p: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-y * p)


SQUARED = Loss(
    "squared",
    value=lambda p, y: (p - y).square() / 2,
    slope=lambda p, y: p - y,
    curvature=lambda p, y: torch.ones_like(p - y),
    is_classification=False,
)
"""(p - y)^2/2."""

LOGISTIC = Loss(
    "logistic",
    value=logistic,
    slope=lambda p, y: -y * torch.sigmoid(-y * p),
    curvature=lambda p, y: torch.sigmoid(y * p) * torch.sigmoid(-y * p),
    is_classification=True,
)
"""ln(1 + exp(-y p))."""

EXPONENTIAL = Loss(
    "exponential",
    value=_exponential,
    slope=lambda p, y: -y * _exponential(p, y),
    curvature=_exponential,
    is_classification=True,
)
"""exp(-y p); it overflows where a margin is below -709."""

LOSSES = {loss.name: loss for loss in (SQUARED, LOGISTIC, EXPONENTIAL)}
"""The losses by name; kernels know them by their place in this order."""

"""Whether numbers that are computed a second time are those that the package gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.verification.statement import Hypothesis, Statement, equal

TOLERANCE = 1e-9
"""Both evaluate the same formulas on the same numbers in another order; a minimiser is good for
1e-10 of its size, and a KKT residual for the rounding of the mirror image."""


class Number(NamedTuple):
    """A number as it should be, and the scale of its rounding."""

    value: float
    scale: float = 0.0


Found = tuple[Mapping[str, float | int], dict[str, Number], dict[str, tuple[Tensor, Tensor]]]
"""A summary, what it should be, and pairs of tensors that should agree."""


def agreement(
    name: str, hypotheses: list[Hypothesis], found: Found, judged: str, section: int = 3
) -> Statement:
    """The largest difference over all numbers; the one that is off the most is shown."""
    summary, expected, fields = found
    errors = {
        key: _difference(float(summary.get(key, math.inf)), number)
        for key, number in expected.items()
    }
    errors |= {key: _difference_of(*pair) for key, pair in fields.items()}
    worst = max(errors, key=lambda key: math.inf if math.isnan(errors[key]) else errors[key])
    predicted, measured = (
        (expected[worst].value, float(summary.get(worst, math.nan)))
        if worst in expected
        else (float(side.double().sum()) for side in reversed(fields[worst]))
    )
    compared = Hypothesis("every number is compared", True, f"{len(errors)}; the worst is {worst}")
    return equal(
        name, section, [*hypotheses, compared], predicted=predicted, measured=measured,
        error=errors[worst], tolerance=TOLERANCE, judged=judged,
    )  # fmt: skip


def _difference(found: float, number: Number) -> float:
    """Relative to the number or to its scale; two that are both nan, or both infinite, agree."""
    if (math.isnan(found) and math.isnan(number.value)) or found == number.value:
        return 0.0
    if math.isinf(number.scale) and not math.isnan(found):
        return 0.0
    return abs(found - number.value) / max(abs(number.value), number.scale, 1e-300)


def _difference_of(found: Tensor, expected: Tensor) -> float:
    scale = float(expected[expected.isfinite()].abs().max()) if expected.isfinite().any() else 1.0
    equal_there = (found == expected) | (found.isnan() & expected.isnan())
    difference = torch.where(equal_there, 0.0, (found - expected).abs())
    return float(difference.max()) / max(scale, 1e-300)

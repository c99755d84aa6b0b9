"""lambda(t) or a friction f(t) as a function of the user: its checks, its values, its slope."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dln_momentum.errors import InputError

Function = Callable[[float], float]

CHECKED = 1000
"""Times at which a function is checked before anything is integrated."""
STEP = 1e-5
"""Step of the difference quotient of five points, times the horizon where that is below 1. It
rounds to 1e-11 of the function a unit of time, at both ends to 1e-10, and has an error of fourth
order. Both enter the energy and, through terms of a thousandth of that, the sums of I_+-."""
ULPS = 8
"""Of t that a step has at least."""
LEAST_JUMP = 1e-6
"""Relative change between two checked times from which on it may be a jump."""
HALVINGS = 60
"""Of the interval between two checked times: then its ends are next to each other. Near 0 doubles
are too many for that: the value at 0 may be one of its own."""
STAYS = 0.5
"""Share of the change that is left where a jump is all of it."""

FORWARD = (-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4)
"""Weights of the values at t, t + h, ..., t + 4 h in h times the slope at t."""


@dataclass(frozen=True)
class GivenFunction:
    """A function of t on [0, horizon] that must be finite and > 0 wherever it is evaluated.

    Args:
        name: what it is called in errors.
        function: of the user.
        horizon: the last time; it is evaluated at none after it, and at none before 0.

    Raises:
        InputError: by a call, for a value that is not allowed.

    >>> round(GivenFunction("lam", lambda t: (4 - t) ** 0.5, 2.0).slope(2.0), 8)
    -0.35355339
    """

    name: str
    function: Function
    horizon: float

    def __call__(self, t: float) -> float:
        """The value at t."""
        try:
            value = float(self.function(t))
        except Exception as error:  # whatever a function of the user does
            raise InputError(f"{self.name}(t) failed at t = {t:g}: {error}") from error
        if not 0 < value < math.inf:
            raise InputError(f"{self.name}({t:g}) = {value:g} must be finite and > 0")
        return value

    def slope(self, t: float) -> float:
        """The derivative by differences; towards the inside near both ends."""
        h = min(_power_of_two(STEP * min(1.0, self.horizon)), self.horizon / 8)
        h = max(h, ULPS * math.ulp(t))
        if t >= 2 * h and t + 2 * h <= self.horizon:
            near, far = self(t + h) - self(t - h), self(t + 2 * h) - self(t - 2 * h)
            return (8 * near - far) / (12 * h)
        h = h if t < 2 * h else -h
        return sum(c * self(t + k * h) for k, c in enumerate(FORWARD)) / h

    def errors(self, jumps: bool) -> Iterator[str]:
        """What is wrong with it at `CHECKED` times, one line at most.

        Args:
            jumps: whether it may jump.
        """
        times = np.linspace(0.0, self.horizon, CHECKED).tolist()
        try:
            values = [self(t) for t in times]
            again = [self(t) for t in times]
            for t, one, other in zip(times, values, again, strict=True):
                if one != other:
                    yield f"{self.name}({t:g}) = {one:g}, and {other:g} when it is called again"
                    return
            place = None if jumps else next(self._jumps(times, values), None)
        except InputError as error:
            yield from error.problems
            return
        if place is not None:
            t, before, after = place
            yield (
                f"{self.name}(t) jumps at t = {t:.6g}, from {before:g} to {after:g}: it must be "
                "continuous, or the energy jumps too; take a short ramp, or two flows"
            )

    def _jumps(
        self, times: list[float], values: list[float]
    ) -> Iterator[tuple[float, float, float]]:
        """Time and both values of the largest jump between two checked times, for each of them."""
        for i in range(len(times) - 1):
            (a, b), (first, last) = times[i : i + 2], values[i : i + 2]
            least = max(STAYS * abs(last - first), LEAST_JUMP * min(first, last))
            # a continuous change is spread over the interval: it is soon less than half of it
            for _ in range(HALVINGS):
                if abs(last - first) < least:
                    break
                middle = (a + b) / 2
                if not a < middle < b:
                    yield b, first, last
                    break
                value = self(middle)
                if abs(value - first) > abs(last - value):
                    b, last = middle, value
                else:
                    a, first = middle, value


def _power_of_two(x: float) -> float:
    """The largest one that is not above x: added to t, and taken off again, it is exact."""
    return math.ldexp(1.0, math.frexp(x)[1] - 1) if x > 0 else x

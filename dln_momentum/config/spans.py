"""Numbers, lists of them, and spans of them that a shell and Hydra leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dln_momentum.arrays import is_real

SPANS = "linspace:START:STOP:COUNT, geomspace:START:STOP:COUNT or range:START:STOP[:STEP]"
MAX_VALUES = 10**6
"""Values of one key; the memory estimate refuses most grids long before."""

Number = int | float


def numbers_of(label: str, given: Any) -> Sequence[Number] | str:
    """The numbers that a value of a config means, or what is wrong with it.

    Args:
        label: the key, for the error.
        given: a number, a list of numbers, or a span (see `SPANS`).

    >>> numbers_of("flow.lam", "geomspace:1e-3:1e-1:3")
    [0.001, 0.01, 0.1]
    >>> numbers_of("flow.lam", 2)
    [2]
    """
    if isinstance(given, str):
        return _span(label, given)
    values = given if isinstance(given, list) else [given]
    if not values or not all(is_real(value) for value in values):
        return f"{label} = {given!r} must be a number, a list of numbers, or {SPANS}"
    return values


def is_span(value: Any) -> bool:
    """Whether a value is written as a span (see `SPANS`).

    >>> is_span("range:0:5"), is_span("gaussian"), is_span(5)
    (True, False, False)
    """
    return isinstance(value, str) and ":" in value and value.partition(":")[0] in _SPAN_KINDS


def _span(label: str, text: str) -> Sequence[Number] | str:
    kind, *parts = text.split(":")
    try:
        return _SPAN_KINDS[kind](*parts)
    except _WrongSpanError as error:
        return f"{label} = {text!r} {error}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return (
            f"{label} = {text!r} must be a number, a list of numbers, or {SPANS}, "
            f"of 1 to {MAX_VALUES} values"
        )


class _WrongSpanError(ValueError):
    """A span that is written as one, and why there is none."""


def _spaced(
    space: Callable[..., np.ndarray], start: str, stop: str, count: str
) -> Sequence[Number]:
    ends = float(start), float(stop)
    if space is np.geomspace and not all(end > 0 for end in ends):
        raise _WrongSpanError(
            "must have both ends > 0, as a geometric span; linspace goes through 0, and a list "
            "may hold 0 beside others"
        )
    if not all(map(math.isfinite, ends)):
        raise _WrongSpanError("must have finite ends")
    return _whole(space(*ends, _count(int(count))))


def _range(start: str, stop: str, step: str = "1") -> Sequence[Number]:
    values = range(int(start), int(stop), int(step))
    _count(len(values))
    return values


def _count(count: int) -> int:
    if not 1 <= count <= MAX_VALUES:
        raise _WrongSpanError(f"has {count} values; must have 1 to {MAX_VALUES}")
    return count


def _whole(values: np.ndarray) -> Sequence[Number]:
    """Whole numbers as integers, where all of them are whole: linspace:0:8:5 may be seeds.

    From 2^53 on a float may stand for a neighbour of the number that was meant.
    """
    numbers = values.tolist()
    exact = all(x.is_integer() and abs(x) < 2**53 for x in numbers)
    return [int(x) for x in numbers] if exact else numbers


_SPAN_KINDS: dict[str, Callable[..., Sequence[Number]]] = {
    "linspace": partial(_spaced, np.linspace),
    "geomspace": partial(_spaced, np.geomspace),
    "range": _range,
}

"""The values of a sweep's axes: numbers, lists, and spans that a shell and Hydra leave alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dln_momentum.arrays import is_integer, is_real
from dln_momentum.outputs.quantities import RATES, SEEDS

AXES = (*RATES, "alpha", *SEEDS)
"""What may be swept, in the order of the dimensions of the result."""

SPANS = "linspace:START:STOP:COUNT, geomspace:START:STOP:COUNT or range:START:STOP[:STEP]"
MAX_VALUES = 10**6
"""Values on one axis; the memory estimate refuses most grids long before."""

Number = int | float


def axis_values(name: str, given: Any, errors: list[str]) -> np.ndarray | None:
    """The values of one axis, or None with a complaint added.

    Args:
        name: one of `AXES`; seeds are whole numbers, beta is finite, the others are > 0. A beta
            outside [0, 1) is allowed: its grid points are then invalid.
        given: a number, a list of different numbers, or a span (see `SPANS`).
        errors: what is wrong is added here, one line.

    >>> axis_values("gamma", "geomspace:1e-3:1e-1:3", [])
    array([0.001, 0.01 , 0.1  ])
    >>> axis_values("seed", "range:0:20:5", [])
    array([ 0,  5, 10, 15])
    >>> errors = []
    >>> axis_values("lam", [1, -2], errors), errors
    (None, ['sweep.lam = -2 must be finite and > 0'])
    """
    label = f"sweep.{name}"
    found = _numbers(label, given)
    if isinstance(found, str):
        errors.append(found)
        return None
    wrong = [value for value in found if not _allowed(name, value)]
    repeated = len(set(found)) < len(found)
    if wrong:
        shown = ", ".join(f"{value:g}" for value in wrong[:5])
        errors.append(f"{label} = {shown} must be {_RANGES[name]}")
    elif repeated:
        errors.append(f"{label} = {given!r} has a value twice; each may occur once")
    if wrong or repeated:
        return None
    return np.array(found, dtype=np.int64 if name in SEEDS else np.float64)


_POSITIVE, _SEED = "finite and > 0", "a whole number in [0, 2^63)"
_RANGES = {"beta": "finite"} | {key: _SEED if key in SEEDS else _POSITIVE for key in AXES[2:]}
_RANGES["gamma"] = _POSITIVE


def _allowed(name: str, value: Number) -> bool:
    if name in SEEDS:
        return is_integer(value, 0, 2**63 - 1)
    return math.isfinite(value) and (name == "beta" or value > 0)


def _numbers(label: str, given: Any) -> Sequence[Number] | str:
    """The numbers, or what is wrong."""
    if isinstance(given, str):
        return _span(label, given)
    values = given if isinstance(given, list) else [given]
    if not values or not all(is_real(value) for value in values):
        return f"{label} = {given!r} must be a number, a list of numbers, or {SPANS}"
    return values


def _span(label: str, text: str) -> Sequence[Number] | str:
    kind, *parts = text.split(":")
    try:
        return _SPAN_KINDS[kind](*parts)
    except (KeyError, TypeError, ValueError, OverflowError):
        return (
            f"{label} = {text!r} must be a number, a list of numbers, or {SPANS}, "
            f"of 1 to {MAX_VALUES} values"
        )


def _linspace(start: str, stop: str, count: str) -> Sequence[Number]:
    return _whole(np.linspace(_finite(start), _finite(stop), _count(int(count))))


def _geomspace(start: str, stop: str, count: str) -> Sequence[Number]:
    if not (float(start) > 0 and float(stop) > 0):
        raise ValueError("a geometric span must lie above 0")
    return _whole(np.geomspace(_finite(start), _finite(stop), _count(int(count))))


def _range(start: str, stop: str, step: str = "1") -> Sequence[Number]:
    values = range(int(start), int(stop), int(step))
    _count(len(values))
    return values


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError("the ends of a span must be finite")
    return float(text)


def _count(count: int) -> int:
    if not 1 <= count <= MAX_VALUES:
        raise ValueError("too few or too many values")
    return count


def _whole(values: np.ndarray) -> Sequence[Number]:
    """Whole numbers as integers, where all of them are whole: linspace:0:8:5 may be seeds.

    From 2^53 on a float may stand for a neighbour of the number that was meant.
    """
    numbers = values.tolist()
    exact = all(x.is_integer() and abs(x) < 2**53 for x in numbers)
    return [int(x) for x in numbers] if exact else numbers


_SPAN_KINDS = {"linspace": _linspace, "geomspace": _geomspace, "range": _range}

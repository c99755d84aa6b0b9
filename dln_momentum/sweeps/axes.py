"""The values of a sweep's axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dln_momentum.arrays import is_integer
from dln_momentum.config.spans import Number, numbers_of
from dln_momentum.outputs.quantities import RATES, SEEDS

AXES = (*RATES, "alpha", *SEEDS)
"""What may be swept, in the order of the dimensions of the result."""


def axis_values(name: str, given: Any, errors: list[str]) -> np.ndarray | None:
    """The values of one axis, or None with a complaint added.

    Args:
        name: one of `AXES`; seeds are whole numbers, beta is finite, the others are > 0. A beta
            outside [0, 1) is allowed: its grid points are then invalid.
        given: a number, a list of different numbers, or a span (see `dln_momentum.config.spans`).
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
    found = numbers_of(label, given)
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

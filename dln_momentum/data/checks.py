"""Checks of single arguments that the loaders share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def is_integer(value: Any, low: float, high: float = math.inf) -> bool:
    """Whether value is a whole number (no bool, no float) in [low, high].

    >>> is_integer(3, 1), is_integer(3.0, 1), is_integer(True, 0), is_integer(0, 1)
    (True, False, False, False)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(low <= value <= high)


def is_real(value: Any) -> bool:
    """Whether value is one finite number.

    >>> is_real(0.5), is_real(2), is_real(math.nan), is_real("2")
    (True, True, False, False)
    """
    real = isinstance(value, float | int | np.floating | np.integer)
    return real and not isinstance(value, bool) and math.isfinite(value)

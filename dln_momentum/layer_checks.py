"""Which layers a network may start from: condition (C1), positive layers of greater depth."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dln_momentum.arrays import array_of
from dln_momentum.errors import InputError

SMALLEST_BALANCEDNESS = 1e-290
"""Delta_0 below which a start is refused. The least normal double is 2e-308: a Delta that falls by
eighteen decades from here still has all its digits."""

BALANCED_REMEDY = (
    "where |u| = |v|, theta keeps its sign for ever; take other layers, or, for the balanced "
    "start of the four-vector model u_+ v_+ - u_- v_- = a^2 - b^2, biased with "
    "parametrisation = squares and phi = 1"
)
"""What to do instead of a start that violates condition (C1)."""


def check_layers(u: Tensor, v: Tensor, key: str = "u and v") -> None:
    """Check condition (C1) of the theory, that Delta_0 = |u^2 - v^2| is nowhere zero.

    Starts so small that float64 cannot hold Delta are refused too: its digits would be lost in
    every certificate (docs/theory.md#tiny-starts).

    Args:
        u, v: the layers, [*runs, d] each.
        key: what a user has given them by, for the error.

    Raises:
        InputError: where it does not hold, or an entry is not finite.
    """
    if not bool((u.isfinite() & v.isfinite()).all()):
        raise InputError("u and v must be finite")
    if not bool((u.square() - v.square()).isfinite().all()):
        largest = float(torch.maximum(u.abs(), v.abs()).max())
        raise InputError(
            f"{key}: Delta_0 = |u^2 - v^2| overflows, with an entry of size {largest:g}; "
            "must be finite: take a smaller start"
        )
    balancedness = (u + v) * (u - v)
    # a product that underflows is not a balanced coordinate
    balanced = (balancedness == 0) & ((u + v == 0) | (u - v == 0))
    least = float(balancedness.abs().min()) if balancedness.numel() else 1.0
    if not bool(balanced.any()) and least < SMALLEST_BALANCEDNESS:
        raise InputError(
            f"{key}: Delta_0 = |u^2 - v^2| is {least:.3g} at the least, must be >= "
            f"{SMALLEST_BALANCEDNESS:g}, below which float64 loses digits of Delta: "
            "take a larger start (uniform: alpha >= 7.1e-146)"
        )
    if bool(balanced.any()):
        where = balanced.nonzero()[:5].squeeze(-1).tolist()
        raise InputError(
            f"Delta_0 = |u^2 - v^2| is zero in {int(balanced.sum())} coordinates "
            f"(first at {where}); condition (C1) needs every entry > 0; {BALANCED_REMEDY}"
        )


def check_positive(u: Tensor, v: Tensor) -> None:
    """Check that the layers of a network of depth D > 2 are positive.

    Raises:
        InputError: where they are not, or an entry is not finite.
    """
    for key, layer in (("u", u), ("v", v)):
        bad = ~(layer.isfinite() & (layer > 0))
        if bool(bad.any()):
            raise InputError(
                f"{key} has {int(bad.sum())} entries that are not finite and > 0; the layers "
                "of depth > 2 must be positive"
            )


def checked_depth(depth: ArrayLike) -> NDArray[np.float64]:
    """D as an array: 2 everywhere, or finite and above 2 everywhere.

    Raises:
        InputError: for other values.
    """
    depths = array_of("depth", depth)
    if not (np.all(depths == 2) or np.all(np.isfinite(depths) & (depths > 2))):
        wrong = depths[~(np.isfinite(depths) & (depths > 2))].flat[0]
        raise InputError(
            f"depth = {wrong:g} must be 2 in all runs, or finite and > 2 in all of them"
        )
    return depths

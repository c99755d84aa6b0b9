"""Generators keyed by all 64 bits of a seed, one family for each purpose.

torch's CPU generator keeps the low 32 bits of a seed: seeds 0 and 2^32 would give equal numbers.
Philox is a counter-based generator (Salmon et al., SC 2011) with a key of 128 bits; here the seed
is the low half of the key and the purpose the high half.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from dln_momentum.arrays import is_integer
from dln_momentum.errors import InputError

SEEDS = 2**64
"""Seeds are the integers in [0, SEEDS)."""


class Purpose(IntEnum):
    """What numbers are drawn for; equal seeds of different purposes give unrelated numbers."""

    BATCHES = 1
    LABEL_NOISE = 2
    INITIALISATION = 3
    ROWS = 4


def is_seed(value: Any) -> bool:
    """Whether value is a whole number (no bool, no float) in [0, 2^64).

    >>> is_seed(2**64 - 1), is_seed(2**64), is_seed(-1), is_seed(1.0)
    (True, False, False, False)
    """
    return is_integer(value, 0, SEEDS - 1)


def seeded_generator(purpose: Purpose, seed: int, part: int = 0) -> np.random.Generator:
    """The generator of one (purpose, seed, part); different triples give unrelated numbers.

    Args:
        purpose: what is drawn.
        seed: an integer in [0, 2^64).
        part: index in [0, 2^128) of a part of the stream; each part has 2^128 draws.

    Raises:
        InputError: for a seed out of its range.

    >>> [int(seeded_generator(Purpose.BATCHES, seed).integers(1000)) for seed in (0, 2**32)]
    [975, 608]
    """
    if not is_seed(seed):
        raise InputError(f"seed = {seed!r} must be an integer in [0, 2^64)")
    # the low words of the counter count draws, so parts cannot overlap
    key, counter = (int(purpose) << 64) | int(seed), part << 128
    return np.random.Generator(np.random.Philox(key=key, counter=counter))

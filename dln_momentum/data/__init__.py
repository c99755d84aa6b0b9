"""Loaders of problems, and the seeded streams of mini-batches and label noise."""

from __future__ import annotations

from collections.abc import Callable

from dln_momentum.data.arrays import read_archive
from dln_momentum.data.files import load
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.real import diabetes, digits
from dln_momentum.data.rows import Rows
from dln_momentum.data.sampling import BatchStream
from dln_momentum.data.sparse import sparse
from dln_momentum.data.standardise import standardised
from dln_momentum.problem import Problem

LOADERS: dict[str, Callable[..., Problem]] = {
    "sparse": sparse,
    "file": load,
    "diabetes": diabetes,
    "digits": digits,
}

__all__ = [
    "LOADERS",
    "BatchStream",
    "LabelNoise",
    "Rows",
    "diabetes",
    "digits",
    "load",
    "read_archive",
    "sparse",
    "standardised",
]

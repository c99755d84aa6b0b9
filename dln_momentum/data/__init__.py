"""Loaders of problems, and the seeded streams of mini-batches and label noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.real import diabetes, digits
from dln_momentum.data.sampling import BatchStream
from dln_momentum.data.sparse import sparse
from dln_momentum.data.standardise import Rows, standardised
from dln_momentum.data.tabular import from_csv, from_file, from_npz, read_archive
from dln_momentum.errors import InputError, in_section
from dln_momentum.problem import Problem

LOADERS: dict[str, Callable[..., Problem]] = {
    "sparse": sparse,
    "file": from_file,
    "diabetes": diabetes,
    "digits": digits,
}

SAMPLING_KEYS = ("batch_size", "sampling", "label_noise", "noise_until")
"""Keys of every data config that describe how a run samples the rows; no loader takes them."""


def load(kind: str, **keys: Any) -> Problem:
    """Build the problem that a data config describes.

    Args:
        kind: a key of `LOADERS`.
        **keys: the arguments of that loader; `SAMPLING_KEYS` may be among them and are ignored.

    Raises:
        InputError: for an unknown kind or key, or as the loader does, with ``data.`` before each
            key.

    >>> load("sparse", n=5, d=8, s=1, batch_size=2)
    Problem('sparse n=5 d=8 s=1 gaussian seed=0', runs=[], n=5, d=8)
    >>> load("digits", d=30)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: unknown key data.d for data.kind = 'digits'; valid keys:
    n, classes, seed
    """
    if kind not in LOADERS:
        raise InputError([f"data.kind = {kind!r} must be one of {', '.join(LOADERS)}"])
    allowed = list(inspect.signature(LOADERS[kind]).parameters)
    keys = {key: value for key, value in keys.items() if key not in SAMPLING_KEYS}
    unknown = ", ".join(f"data.{key}" for key in keys if key not in allowed)
    if unknown:
        valid = ", ".join(allowed)
        raise InputError([f"unknown key {unknown} for data.kind = {kind!r}; valid keys: {valid}"])
    with in_section("data", allowed):
        return LOADERS[kind](**keys)


__all__ = [
    "LOADERS",
    "SAMPLING_KEYS",
    "BatchStream",
    "LabelNoise",
    "Rows",
    "diabetes",
    "digits",
    "from_csv",
    "from_file",
    "from_npz",
    "load",
    "read_archive",
    "sparse",
    "standardised",
]

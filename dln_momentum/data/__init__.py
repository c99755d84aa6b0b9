"""Where problems come from, and the seeded streams that a stochastic run reads."""

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
from dln_momentum.problem import Problem, ProblemError

LOADERS: dict[str, Callable[..., Problem]] = {
    "sparse": sparse,
    "file": from_file,
    "diabetes": diabetes,
    "digits": digits,
}

SAMPLING_KEYS = ("batch_size", "sampling", "label_noise", "noise_until")
"""Keys of every data config that say how a run reads the rows; no loader needs them."""


def load(kind: str, **keys: Any) -> Problem:
    """Build the problem that a data config describes.

    Args:
        kind: a key of `LOADERS`.
        **keys: the arguments of that loader; `SAMPLING_KEYS` may be among them and are passed over.

    Raises:
        ProblemError: for another kind, keys that the loader does not have, or what it refuses.

    >>> load("sparse", n=5, d=8, s=1, batch_size=2)
    Problem('sparse n=5 d=8 s=1 gaussian seed=0', runs=[], n=5, d=8)
    >>> load("digits", d=30)
    Traceback (most recent call last):
    dln_momentum.problem.ProblemError: data.d is no key of data.kind = 'digits', allowed:
    n, classes, seed
    """
    if kind not in LOADERS:
        raise ProblemError([f"data.kind = {kind!r} must be one of {', '.join(LOADERS)}"])
    allowed = list(inspect.signature(LOADERS[kind]).parameters)
    keys = {key: value for key, value in keys.items() if key not in SAMPLING_KEYS}
    unknown = ", ".join(f"data.{key}" for key in keys if key not in allowed)
    if unknown:
        raise ProblemError(
            [f"{unknown} is no key of data.kind = {kind!r}, allowed: {', '.join(allowed)}"]
        )
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

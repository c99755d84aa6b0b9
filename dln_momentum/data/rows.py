"""The rows of a problem before it is built: labels, and training rows drawn from all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dln_momentum.arrays import is_integer
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.seeding import Purpose, is_seed, seeded_generator


@dataclass(frozen=True)
class Rows:
    """The arrays of a problem before it is built: X [n, d], y [n], and what else is known."""

    X: np.ndarray
    y: np.ndarray
    theta_star: np.ndarray | None = None
    X_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def drawn(rows: Rows, count: int, seed: int) -> Rows:
    """Training rows drawn from all rows; the others become the test rows.

    The order is one uniform permutation of all rows for each seed, so that fewer rows of a seed are
    among more of them.

    Args:
        rows: all rows. Test rows of their own are kept, and the rows not drawn are then left out.
        count: number of training rows, in [1, n].
        seed: integer in [0, 2^64).

    Raises:
        InputError: for a count or seed out of range.

    >>> all_rows = Rows(X=np.arange(8.0).reshape(4, 2), y=np.arange(4.0))
    >>> few, more = drawn(all_rows, 2, seed=0), drawn(all_rows, 3, seed=0)
    >>> few.y.tolist() == more.y[:2].tolist(), sorted([*few.y.tolist(), *few.y_test.tolist()])
    (True, [0.0, 1.0, 2.0, 3.0])
    """
    n = len(rows.X)
    errors = []
    if not is_integer(count, 1, n):
        errors.append(f"rows = {count!r} must be an integer in [1, {n}], the rows of the file")
    if not is_seed(seed):
        errors.append(f"seed = {seed!r} must be an integer in [0, 2^64)")
    raise_if_any(errors)
    if len(rows.y) != n:
        return rows  # for `Problem` to refuse
    order = seeded_generator(Purpose.ROWS, seed).permutation(n)
    train, rest = order[:count], order[count:]
    note = f"{count} of {n} rows drawn with seed {seed}"
    held_out = {}
    if rows.X_test is not None:
        note += "; the others are left out, since the file has test rows"
    elif len(rest):
        note += "; the others are test rows"
        held_out = {"X_test": rows.X[rest], "y_test": rows.y[rest]}
    return dataclasses.replace(
        rows, X=rows.X[train], y=rows.y[train], notes=(*rows.notes, note), **held_out
    )


def signs_of(labels: Sequence[np.ndarray], what: str) -> tuple[list[np.ndarray], str]:
    """Text of two classes as -1 and +1, in alphabetical order.

    Args:
        labels: arrays of text, whose classes are counted together.
        what: what they are, for the error.

    Returns:
        The arrays as float64, and a note.

    Raises:
        InputError: for another number of classes.

    >>> signs_of([np.array(["ham", "spam", "ham"])], "y")
    ([array([-1.,  1., -1.])], "y: 'ham' is read as -1, 'spam' as +1")
    """
    texts = [array.astype(str) for array in labels]
    classes = sorted({str(text) for array in texts for text in array})
    if len(classes) != 2:
        shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise InputError([f"{what} must be numeric, or text of 2 classes; it has {shown}"])
    negative, positive = classes
    signs = [np.where(array == positive, 1.0, -1.0) for array in texts]
    return signs, f"{what}: {negative!r} is read as -1, {positive!r} as +1"


def checked_path(path: Any, key: str) -> Path:
    """A text or a path as a path.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(path, str | Path):
        raise InputError([f"{key} = {path!r} must be a path, text or pathlib.Path"])
    return Path(path)


def existing(path: str | Path, key: str) -> Path:
    """The file that a key names.

    Raises:
        InputError: if there is none.
    """
    file = checked_path(path, key)
    try:
        file = file.expanduser()
        is_file = file.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, no home, a NUL
        is_file = False
    if not is_file:
        raise InputError(
            [f"{key} = {_short(str(path))!r} is not a file (working directory: {Path.cwd()})"]
        )
    return file


def _short(text: str) -> str:
    return text if len(text) < 200 else f"{text[:200]}..."

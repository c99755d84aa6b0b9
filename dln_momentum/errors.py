"""One error for bad input: it lists every problem found, each with its key, value and range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Raised before anything is computed or written when an input is not allowed.

    Args:
        problems: one line each, naming the key, the value and what is allowed.

    >>> raise InputError(["gamma = -1 must be > 0", "beta = 2 must be in [0, 1)"])
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - gamma = -1 must be > 0
      - beta = 2 must be in [0, 1)
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            message = f"{len(self.problems)} problems:{lines}"
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # a parallel launcher sends the error between processes
        return type(self), (self.problems,)


def raise_if_any(problems: Iterable[str]) -> None:
    """Raise `InputError` if there is any problem, and do nothing otherwise."""
    found = list(problems)
    if found:
        raise InputError(found)

"""One error for bad input: it lists every problem found, each with its key, value and range."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


class InputError(ValueError):
    """Raised before anything is computed or written when an input is not allowed.

    Args:
        problems: one line, or one each, naming the key, the value and what is allowed.

    >>> raise InputError(["gamma = -1 must be > 0", "beta = 2 must be in [0, 1)"])
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - gamma = -1 must be > 0
      - beta = 2 must be in [0, 1)
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
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


class Checks:
    """What several checks find, raised together.

    >>> def even(value: int) -> int:
    ...     raise_if_any([f"{value} must be even"] * (value % 2))
    ...     return value
    >>> checks = Checks()
    >>> [checks.passed(0, even, value) for value in (1, 2, 3)]
    [0, 2, 0]
    >>> checks.raise_if_any()
    Traceback (most recent call last):
    dln_momentum.errors.InputError: 2 problems:
      - 1 must be even
      - 3 must be even
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def passed(
        self, otherwise: V, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | V:
        """What a function gives; if it raises `InputError`, a stand-in that later checks take."""
        try:
            return check(*args, **kwargs)
        except InputError as error:
            self.problems += error.problems
            return otherwise

    def raise_if_any(self) -> None:
        """Raise `InputError` if any check has failed."""
        raise_if_any(self.problems)

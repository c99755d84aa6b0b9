"""Keys that earlier versions had, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

RENAMED = {
    "data.replacement": "data.sampling: with_replacement (was true), without_replacement (was "
    "false: distinct rows within a batch, no epochs) or reshuffle (epochs)",
}
"""A sentence's end for each old key."""


def renamed_problems(keys: Iterable[str]) -> Iterator[str]:
    """A line for each key that has another name now.

    >>> list(renamed_problems(["data.n", "model.alpha"]))
    []
    """
    for key in keys:
        if key in RENAMED:
            yield f"{key} is now {RENAMED[key]}"

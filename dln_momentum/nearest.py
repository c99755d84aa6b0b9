"""The key that a mistyped one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHORTEST = 3
"""Letters that two words must share to be near because one begins with the other."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The text (did you mean X?) with the nearest of the known words; empty for none.

    First come keys of the same section, then keys with that last part, then all of them, then
    those that begin with the word, or that it begins with.

    >>> did_you_mean("trainer.max_step", ["trainer.tol", "trainer.max_steps"])
    ' (did you mean trainer.max_steps?)'
    >>> did_you_mean("model.gama", ["model.alpha", "optimizer.gamma"])
    ' (did you mean optimizer.gamma?)'
    >>> did_you_mean("lambda", ["lam", "l1_norm"]), did_you_mean("recovery", ["recovery_error"])
    (' (did you mean lam?)', ' (did you mean recovery_error?)')
    >>> did_you_mean("qqq", ["model.alpha"])
    ''
    """
    known = list(known)
    section, _, leaf = word.rpartition(".")
    leaves = {key.rpartition(".")[2]: key for key in reversed(known)}
    own = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    everywhere = {key: key for key in known}
    for sought, pool in ((leaf, own), (leaf, leaves), (word, everywhere)):
        if found := get_close_matches(sought, pool, 1, 0.75):
            return f" (did you mean {pool[found[0]]}?)"
    begins = [key for key in known if min(len(key), len(word)) >= SHORTEST]
    begins = [key for key in begins if key.startswith(word) or word.startswith(key)]
    return f" (did you mean {min(begins, key=len)}?)" if begins else ""

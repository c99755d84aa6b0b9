"""Where a command may write: ``name`` and ``paths.root``, of which Hydra makes a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

LONGEST = 255
"""Bytes of one name in a directory, on the file systems that are in use."""


def place_errors(name: Any, root: Any) -> Iterator[str]:
    """What is wrong with the keys ``name`` and ``paths.root``.

    A name must stay below the root. The root is the user's choice.

    >>> list(place_errors("study/first", "outputs")), len(list(place_errors("../x", "")))
    ([], 2)
    """
    if wrong := _wrong_part(name):
        yield (
            f"name = {shown(name)} must be the name of a folder below paths.root, or several with "
            f"/ between them: {wrong}"
        )
    if not isinstance(root, str) or not root.strip():
        yield f"paths.root = {shown(root)} must be the path of a folder"
    elif not root.isprintable() or max(map(_bytes, root.split("/"))) > LONGEST:
        yield f"paths.root = {shown(root)} must be the path of a folder: {_RULE}"


_RULE = f"printable characters, at most {LONGEST} bytes between two /"


def _wrong_part(name: Any) -> str:
    """The rule that a name breaks; empty for none."""
    if not isinstance(name, str):
        return "a text"
    if not name.isprintable() or max(map(_bytes, name.split("/"))) > LONGEST:
        return _RULE
    parts = name.split("/")
    if any(part.strip() in ("", os.curdir, os.pardir) for part in parts):
        return "none of them empty, . or .."
    return "none of them may begin with - or ~" if any(p[0] in "-~" for p in parts) else ""


def _bytes(text: str) -> int:
    return len(os.fsencode(text))


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:40]}...{text[-20:]} ({len(text) - 2} characters)"

"""How a command calls Hydra: errors raised instead of printed, and no config composed in vain."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from hydra._internal.hydra import Hydra

from dln_momentum.cli.words import Line

SETTING_MODE = ("hydra.mode", "hydra.searchpath", "hydra=")
"""How words start from which a config may have a ``hydra.mode``."""


def wants_traceback() -> bool:
    """Whether the user has asked Hydra for tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextlib.contextmanager
def raising_hydra() -> Iterator[None]:
    """Let Hydra raise what it otherwise prints with a traceback or a hint at one."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextlib.contextmanager
def mode_of(line: Line) -> Iterator[None]:
    """Spare Hydra the config that it composes for the sake of ``hydra.mode``, half a second.

    Only a word sets that key, or a config of the user's own.
    """
    own = any(flag.startswith(("--config", "-c")) and flag != "-c" for flag in line.flags)
    if own or any(word.lstrip("+~").startswith(SETTING_MODE) for word in line.words):
        yield
        return
    usual = Hydra.get_mode
    setattr(Hydra, "get_mode", lambda *_, **__: None)  # noqa: B010 - a wrong type
    try:
        yield
    finally:
        setattr(Hydra, "get_mode", usual)  # noqa: B010


@contextlib.contextmanager
def arguments(words: Sequence[str]) -> Iterator[None]:
    """Let Hydra read other words than those of the command line."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before

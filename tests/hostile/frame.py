"""A table of hostile input: each case is refused with one clear error and leaves no trace.

A case is a call, and fragments of what the error must say: the key, the value and what is allowed.
`refused` makes the call in an empty directory and checks all of it; `leaves_no_trace` and `says`
are for callers, as those of commands, that see an error in another form.
"""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dln_momentum import InputError

SECONDS = 2.0
"""CPU seconds that a refusal may take; what is refused is known before anything is computed."""
LONGEST = 2000
"""Characters of a message; a value of a million entries must not be printed in full."""


@dataclass(frozen=True)
class Case:
    """One hostile call."""

    id: str
    call: Callable[[], object]
    key: str
    """fragment: the argument, and where it is short its value"""
    allowed: str
    """fragment: what is allowed"""


def table(*rows: Case | tuple[str, Callable[[], object], str, str]) -> list[Any]:
    """The rows (id, call, key, allowed) for `pytest.mark.parametrize`; ids must differ."""
    cases = [row if isinstance(row, Case) else Case(*row) for row in rows]
    ids = [case.id for case in cases]
    twice = {each for each in ids if ids.count(each) > 1}
    assert not twice, f"ids that are there twice: {sorted(twice)}"
    return [pytest.param(case, id=case.id) for case in cases]


def refused(case: Case, folder: Path, kind: type[InputError] = InputError) -> None:
    """Make the call: it must raise exactly ``kind`` with the fragments, and leave no trace."""
    with leaves_no_trace(folder), pytest.raises(InputError) as told:
        case.call()
    assert type(told.value) is kind
    says(str(told.value), (case.key, case.allowed))


def says(message: str, fragments: Iterable[str]) -> None:
    """The message must hold each fragment, be short, and hold no traceback."""
    for words in fragments:
        assert words in message, f"{words!r} is not in {message!r}"
    assert "Traceback" not in message
    assert len(message) <= LONGEST, f"{len(message)} characters: {message[:200]} ..."


@contextmanager
def leaves_no_trace(folder: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Within, no file, thread, file descriptor, random draw or global setting may stay behind.

    Args:
        folder: the working directory of what is called.
        seconds: CPU seconds that it may take.
    """
    files, before = _files(folder), _globals()
    started = time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    spent = time.process_time() - started
    after = _globals()
    assert {key for key in before if before[key] != after[key]} == set()
    assert _files(folder) == files
    assert spent < seconds, f"{spent:.1f} CPU seconds"
    # an error is the one thing that is said
    assert [str(each.message) for each in warned] == []


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}


def _globals() -> dict[str, Any]:
    """The state of this process that a library must leave alone."""
    return {
        "working directory": Path.cwd(),
        "environment": dict(os.environ),
        "random": hash(random.getstate()),
        "numpy.random": str(np.random.get_state()),  # noqa: NPY002
        "torch.random": hash(torch.get_rng_state().numpy().tobytes()),
        "numpy.errstate": str(np.geterr()),
        "numpy.printoptions": str(np.get_printoptions()),
        "torch.default_dtype": torch.get_default_dtype(),
        "torch.grad_enabled": torch.is_grad_enabled(),
        "torch.num_threads": torch.get_num_threads(),
        "torch.deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": {each.name for each in threading.enumerate() if not each.daemon},
        "file descriptors": _descriptors(),
    }


def _descriptors() -> int | None:
    """Open files of this process; None where the system does not list them."""
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else None

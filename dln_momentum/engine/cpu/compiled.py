"""How the CPU kernels are compiled, and kept: once a machine, a few seconds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

from dln_momentum.engine.cpu.registers import BLOCK

logger = logging.getLogger(__name__)

OPTIONS: dict[str, Any] = {
    "nogil": True,
    # to round a*b + c once is the only liberty that the compiler gets: sums keep their order, and
    # nan and inf their meaning
    "fastmath": {"contract"},
    # Python's exception for a division by zero would keep loops from vectorising
    "error_model": "numpy",
}


def _digest() -> str:
    """Hash of the sources beside this file and of the constants that they import.

    numba takes a kept function for current while the function's own file is unchanged, although it
    holds code from others. With this in its name it is not found once any of them has changed.
    """
    here = Path(__file__).parent
    constants = [here.parent / name for name in ("scaled.py", "state.py", "status.py")]
    sources = [*sorted(here.glob("*.py")), *constants]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


PAGE, PLACES = 512, 8
"""Doubles in a page of memory, and the places in it where arrays begin; see `zeros_at`."""

_VERSION = f"{_digest()}_{BLOCK}"
"""In the name of each compiled function: kept code of another register block is never found."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; it may not make arrays.

    Its arrays are not counted: numba counts references atomically wherever an array gets a name,
    20 cycles and a wait for all stores each time, a quarter of a step at (n, d) = (20, 30).
    """
    function.__qualname__ += f"_{_VERSION}"
    return _kept(function, _nrt=False)


def rounded(function: Callable[..., Any]) -> Any:
    """Compile a function that rounds each operation: what kernels have in loops of their own.

    Whether a*b + c is rounded once is the compiler's choice, loop by loop where the loops differ,
    as on ARM: a run alone and one among others would differ in the last bits of their losses.
    """
    function.__qualname__ += f"_{_VERSION}"
    return _kept(function, _nrt=False, fastmath=False)


def allocating(function: Callable[..., Any]) -> Any:
    """Compile a function that makes arrays; it is not for what every step calls."""
    function.__qualname__ += f"_{_VERSION}"
    return _kept(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Make a function part of whatever compiled function calls it."""
    return _kept(function, inline="always")


def _kept(function: Callable[..., Any], **options: Any) -> Any:
    options = OPTIONS | options
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        _tell_that_nothing_is_kept()
        return numba.njit(**options)(function)


@cache
def _tell_that_nothing_is_kept() -> None:
    logger.warning(
        "compiled kernels cannot be kept: neither the package's folder nor the user's cache can be"
        " written to; every start will compile them again, unless NUMBA_CACHE_DIR names a folder"
    )


@compiled
def unsigned(index: Any) -> Any:
    """An index that cannot be negative: Python's counting from the end costs vectorisation."""
    return np.uintp(index)


@allocating
def zeros(length: Any) -> Any:
    """Zeros from the start of a cache line on: registers as long as a line else touch two."""
    room = np.zeros(length + 8)
    start = -(room.ctypes.data // 8) % 8
    return room[start : start + length]


@allocating
def zeros_at(length: Any, place: Any) -> Any:
    """Zeros that begin at one of the `PLACES` of a page, counted from 0.

    Arrays that a pass goes through side by side begin at different ones. A processor takes a load
    for one of what was stored just before, and waits, where both addresses end in the same bits. On
    an AMD EPYC with AVX-512 a step took 41 cycles a vector instead of 12 with theta one cache line
    after w_-, 13 with it four lines after; that was so for one pair of pages in eleven, so that
    times changed from process to process. Nine arrays at one place do not fit the level-1 cache
    either, so that only these have a place.
    """
    room = np.zeros(length + PAGE)
    start = (place * (PAGE // PLACES) - room.ctypes.data // 8) % PAGE
    return room[start : start + length]


@compiled
def apart(length: Any) -> Any:
    """From where on an array holds the entries of w_- if it begins with ``length`` of w_+.

    They are at the next place of a page: a multiple of a page after w_+ they would be at the same.
    """
    return length + (PAGE // PLACES - length) % PAGE


zeros_in_large_pages: Callable[[int], Any] = getattr(zeros, "py_func", zeros)
"""The same from NumPy itself, which asks Linux for large pages as compiled code does not: an X that
is streamed through memory at each step, as one of (1000, 10000), is read a quarter faster."""

zeros_in_large_pages_at: Callable[[int, int], Any] = getattr(zeros_at, "py_func", zeros_at)

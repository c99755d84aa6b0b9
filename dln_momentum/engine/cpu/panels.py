"""How large the panels are that X is read in, from the caches that the machine reports.

In the gradient of a panel its rows of the residual are read again for each register block, and a
cache line of each of its rows serves the next register block too: both together take up to half of
the level-1 cache. The panel itself is read once for each block of a group, from the level-2 cache,
and takes up to two fifths of that. Each entry of a product is one chain over ascending rows or
columns, whatever the panels, so the numbers of a run do not depend on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dln_momentum.engine.cpu.registers import LANES

SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux lists the caches of a core."""


class Caches(NamedTuple):
    """Bytes of a core's caches for data."""

    level_1: int
    level_2: int


USUAL = Caches(2**15, 2**19)
"""What is assumed where a machine reports nothing: 32 kB and 512 kB."""

LINE = 64
"""Bytes of a cache line."""

COLUMNS = 100
"""Columns of a panel where the level-2 cache has room: measured, half and twice are slower."""

UNITS = {"K": 2**10, "M": 2**20}


def reported_caches(folder: Path = SYSFS) -> Caches:
    """The caches as Linux lists them; `USUAL` for what is not listed, or not as a size."""
    found = {}
    for index in folder.glob("index*"):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction" and int(size[:-1]) > 0:
                found[int(level)] = int(size[:-1]) * UNITS[size[-1:]]
        except (OSError, ValueError, KeyError):
            continue
    return Caches(found.get(1, USUAL.level_1), found.get(2, USUAL.level_2))


def panel_sizes(caches: Caches, lanes: int) -> tuple[int, int]:
    """The most rows and columns of a panel, for SIMD blocks of so many runs.

    >>> panel_sizes(Caches(2**15, 2**19), 8)
    (128, 100)
    """
    rows = max(16, caches.level_1 // (2 * (8 * lanes + LINE)))
    in_level_2 = 2 * caches.level_2 // (5 * 8 * rows)
    return rows, max(16, min(COLUMNS, in_level_2))


CACHES = reported_caches()
PANEL_ROWS, PANEL_COLUMNS = panel_sizes(CACHES, LANES)
"""The most rows and columns of a panel on this machine."""

GROUP = max(1, 64 // LANES)
"""Most SIMD blocks side by side: more of them reuse X in the cache, and crowd it."""


def blocks_together(n: int, d: int, caches: Caches = CACHES, lanes: int = LANES) -> int:
    """SIMD blocks that take each step together.

    A block that fits into the level-1 cache with X, by its w, p, gradient, theta and four vectors
    of the residual's length, takes its steps alone: a fifth faster at (20, 30) on a processor of 48
    kB and 16 lanes.

    >>> blocks_together(20, 30, Caches(48 * 2**10, 2**21), 16)
    1
    >>> blocks_together(20, 30, Caches(2**15, 2**20), 16) == GROUP
    True
    """
    alone = 8 * (lanes * (6 * d + 4 * n) + n * d) <= caches.level_1
    return 1 if alone else GROUP

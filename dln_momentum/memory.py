"""How much memory there is, and one message for what would not fit into it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much a container may take: limit, use, and what of it can be given back."""


def too_large(key: str, value: int, needed: int, what: str, least: int = 1) -> Iterator[str]:
    """What is wrong with a value whose arrays do not fit into memory; nothing if they do.

    Args:
        key: an argument.
        value: what is given.
        needed: bytes, in proportion to the value.
        what: whose arrays they are.
        least: the smallest value that is allowed otherwise.

    >>> (line,) = too_large("d", 10**15, 8 * 10**15 * 120, "X")
    >>> line.partition(": ")[2].partition(",")[0]
    'X would take 8.94e+08 GiB'
    >>> list(too_large("d", 10, 80, "X"))
    []
    """
    room = available_bytes()
    if needed <= room:
        return
    allowed = value * room // needed
    said = f"must be at most {allowed} here" if allowed >= least else "is too large"
    yield (
        f"{key} = {value} {said}: {what} would take {needed / 2**30:.3g} GiB, "
        f"{room / 2**30:.3g} GiB of memory are available"
    )


def available_bytes() -> int:
    """Memory that this process may still take, by the system, its container and its own limit."""
    found = [_by_system(), _by_container(), _by_limit()]
    # where nothing is known, 2^62 bytes are more than any machine has
    return max(0, min((size for size in found if size is not None), default=2**62))


def _by_system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _by_container() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        limit = int((CONTROL_GROUP / "memory.max").read_text())
        used = int((CONTROL_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").open())
        # the cache of files, which the system gives up before it refuses memory
        return limit - used + sum(int(stat.get(f"{kind}active_file", 0)) for kind in ("", "in"))
    return None


def _by_limit() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return limit - pages * os.sysconf("SC_PAGE_SIZE")
    return limit

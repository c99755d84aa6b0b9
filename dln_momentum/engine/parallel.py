"""Tiles of runs on several cores: threads, each with one core to itself.

Compiled code and torch release the interpreter's lock while they compute, so threads reach what
processes would, on shared memory and without copies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def for_each(function: Callable[[T], None], tiles: Sequence[T], workers: int) -> None:
    """Call a function with every tile, on as many threads as there are workers.

    This thread is one of them: if it only waited for the others, it would ask them for the
    interpreter's lock at the beginning of each, and get it after 5 ms, as long as a short block.
    """
    left = iter(list(tiles))  # of a list it gives each tile to one thread alone

    def work() -> None:
        try:
            for tile in left:
                function(tile)
        except BaseException:
            for _ in left:  # nobody is to begin another one
                pass
            raise

    with _one_thread_each():
        if workers == 1 or len(tiles) < 2:
            work()
            return
        others = min(workers, len(tiles)) - 1
        with ThreadPoolExecutor(others) as pool:
            try:
                found = [pool.submit(work) for _ in range(others)]
                work()
            except BaseException:  # a signal, too, that comes before this thread is at work
                for _ in left:
                    pass
                raise
            for future in found:
                future.result()


def physical_cores() -> int:
    """Cores that do arithmetic of their own, as far as this process may use them.

    Without joblib, which knows them, hardware threads are counted instead.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        from joblib import cpu_count
    except ModuleNotFoundError:
        return allowed or 1
    return max(1, min(allowed or 1, cpu_count(only_physical_cores=True)))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from starting threads of its own; new threads inherit the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def split(runs: Tensor, largest: int, multiple: int, workers: int) -> tuple[Tensor, ...]:
    """Tiles of at most ``largest`` runs, enough to keep all workers busy to the end.

    Args:
        runs: indices.
        largest: runs that fit a tile, at least ``multiple``.
        multiple: tiles have so many runs, or a multiple of it, but for the last.
        workers: several tiles each level out their unequal speed; one tile is enough for one.

    >>> [len(tile) for tile in split(torch.arange(100), 1000, 16, workers=2)]
    [16, 16, 16, 16, 16, 16, 4]
    """
    share = len(runs) if workers == 1 else -(-len(runs) // (4 * workers))
    size = min(largest, share + -share % multiple)
    if len(runs) <= size:
        return (runs,) if len(runs) else ()
    return runs.split(size)

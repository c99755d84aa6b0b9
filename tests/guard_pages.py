"""The kernels on arrays that end, or begin, at a page that nobody may touch.

numba checks no index of the loads and stores that the kernels emit as LLVM instructions, and an
access beyond an array of the heap is silent. Here every array that a kernel reads or writes, its
buffers included, lies against a protected page: the system ends the process with SIGSEGV.

``python -m tests.guard_pages behind|before [FAULT]`` runs all cases, and prints their number if the
numbers of every run are those on ordinary arrays. See tests/test_guard_pages.py.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dln_momentum import Engine, EngineOptions, Problem
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine.cpu import family_kernel, kernel
from dln_momentum.engine.cpu.compiled import compiled
from dln_momentum.engine.cpu.family_steps import room_for_rates
from dln_momentum.engine.cpu.one_run import cut
from dln_momentum.engine.cpu.panels import GROUP, PANEL_COLUMNS, PANEL_ROWS
from dln_momentum.engine.cpu.products import set_block_product
from dln_momentum.engine.cpu.registers import LANES, WIDTH
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.schedules import Cosine

LIBC = ctypes.CDLL(None, use_errno=True)


class Guard:
    """Makes arrays against a protected page.

    Args:
        side: ``behind``, where the page follows the last entry, or ``before``, the first.
        short: the buffer, counted from 0 in the order in which a kernel makes them, that gets one
            entry less than was asked for: a fault of the kernel; None for none.
    """

    def __init__(self, side: str, short: int | None = None) -> None:
        self._side, self._short, self._made = side, short, 0
        self._kept: list[mmap.mmap] = []

    def empty(self, shape: Any, dtype: Any = np.float64) -> np.ndarray:
        """An array of zeros; one without entries lies anywhere."""
        count, dtype = int(np.prod(shape)), np.dtype(dtype)
        size = count * dtype.itemsize
        if size == 0:
            return np.empty(shape, dtype)
        page = mmap.PAGESIZE
        pages = -(-size // page)
        memory = mmap.mmap(-1, (pages + 1) * page)
        self._kept.append(memory)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protected, first = (pages * page, pages * page - size)
        if self._side == "before":
            protected, first = 0, page
        if LIBC.mprotect(ctypes.c_void_p(start + protected), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        return np.frombuffer(memory, dtype, count, first).reshape(shape)

    def buffer(self, length: Any, dtype: Any = np.float64) -> np.ndarray:
        """A buffer that a kernel makes for itself."""
        self._made += 1
        return self.empty(int(length) - (self._made - 1 == self._short), dtype)

    def copy(self, value: Any) -> Any:
        """A copy of an array, of each array of a named tuple; anything else as it is."""
        if isinstance(value, tuple):
            entries = [self.copy(entry) for entry in value]
            return tuple(entries) if type(value) is tuple else type(value)(*entries)
        if not isinstance(value, np.ndarray) or not value.flags.c_contiguous:
            return value
        found = self.empty(value.shape, value.dtype)
        found[...] = value
        return found


def copy_back(value: Any, copied: Any) -> None:
    """Write the entries of copies back to what they are copies of."""
    if isinstance(value, tuple):
        for one, other in zip(value, copied, strict=True):
            copy_back(one, other)
    elif isinstance(value, np.ndarray) and value is not copied:
        value[...] = copied


@contextmanager
def guarded(side: str, short: int | None = None) -> Iterator[None]:
    """Within, the kernels work on guarded arrays.

    What a kernel calls in each step is the compiled code; the function around it, which makes the
    buffers, is run by Python, with another `zeros`, so that it is not written a second time here.
    """
    before = [(owner, name, getattr(owner, name)) for owner, name in KERNELS]
    try:
        for owner, name, advance in before:
            setattr(owner, name, _guarded(advance, side, short))
        yield
    finally:
        for owner, name, advance in before:
            setattr(owner, name, advance)


KERNELS = (
    (kernel, "advance_simd_blocks"),
    (kernel, "advance_one_by_one"),
    (family_kernel, "advance_family_blocks"),
    (family_kernel, "advance_family_runs"),
)


def _guarded(advance: Any, side: str, short: int | None) -> Callable[..., None]:
    function, names = advance.py_func, advance.py_func.__globals__

    def call(*given: Any) -> None:
        guard = Guard(side, short)
        numpy = SimpleNamespace(empty=guard.buffer, zeros=guard.buffer, int64=np.int64)
        own = {
            "zeros": guard.buffer,
            "zeros_at": lambda length, place: guard.buffer(length),
            "np": numpy,
            "cut": lambda length: guard.copy(cut(length)),
            "room_for_rates": lambda blocks: guard.copy(room_for_rates(blocks)),
        }
        usual = {name: names[name] for name in own if name in names}
        copied = guard.copy(given)
        names.update({name: own[name] for name in usual})
        try:
            function(*copied)
        finally:
            names.update(usual)
        copy_back(given, copied)

    return call


RUNS = (1, LANES // 4 + 1, LANES, GROUP * LANES + 3)
"""Single runs, a padded block, a full one, and a group of blocks with some runs beyond it: only a
full group fills the buffers to their last entry."""
SHAPES = (
    (1, 1), (1, 2), (3, WIDTH), (3, 5 * WIDTH + 1), (7, 13), (PANEL_ROWS + 1, 3),
    (5, PANEL_COLUMNS + 1),
)  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "telescoped": {},
    "direct": {"path_sums": "direct"},
    "gradient_sum": {"path_sums": "gradient_sum"},
    "Nesterov with decay": {
        "method": Method("nesterov", Cosine(30), weight_decay=0.1, decay_until=9)
    },
    "decoupled decay": {"method": Method(weight_decay=0.1, decoupled=True)},
    "depth": {"method": Method(depth=2.5)},
    "classification": {"loss": "logistic"},
}
STEPS = 23


def cases() -> Iterator[Callable[[], Engine]]:
    """Engines at their start; every method with the awkward shapes and numbers of runs."""
    for given in METHODS.values():
        for number, (n, d) in enumerate(SHAPES):
            for runs in RUNS:
                # batches and noise, and data of their own, in turn
                drawn, own = (number + runs) % 2 == 0, number % 3 == 1 and runs <= LANES
                yield lambda of=(n, d, runs, drawn, own, given): engine_of(*of)


def engine_of(n: int, d: int, runs: int, drawn: bool, own: bool, given: dict[str, Any]) -> Engine:
    """Some runs on random data, each with rates of its own."""
    problem = problem_of(n, d, given.get("loss", "squared"))
    method, seeds = given.get("method", Method()), list(range(runs))
    noisy = drawn and not problem.is_classification
    gamma, beta = torch.linspace(1e-5, 5e-5, runs).double(), torch.linspace(0.1, 0.9, runs).double()
    first = torch.linspace(0.4, 0.6, runs * d).double().reshape(runs, d)
    return Engine(
        stack([problem] * runs) if own else problem, gamma, beta, first, 0.9 * first,
        batches=BatchStream(n, min(n, 2), "with_replacement", seeds) if drawn else None,
        label_noise=LabelNoise(n, 0.01, until=20, seeds=seeds) if noisy else None,
        options=EngineOptions(
            backend="numba", tol=0.0, path_sums=given.get("path_sums", "telescoped")
        ),
        method=method,
    )  # fmt: skip


def problem_of(n: int, d: int, loss: str) -> Problem:
    """Targets that some theta interpolates, or labels that it separates."""
    rng = np.random.default_rng(n + 100 * d)
    rank = max(1, min(n, d - 1))
    X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    y = X @ rng.normal(size=d)
    return Problem(X, y) if loss == "squared" else Problem(X, np.sign(y), loss=loss)


def states(side: str | None, make: Callable[[], Engine], short: int | None) -> dict[str, Any]:
    """The state after some steps, on guarded arrays or, without a side, on ordinary ones."""
    engine = make()
    if side is None:
        engine.advance(STEPS)
    else:
        with guarded(side, short):
            engine.advance(STEPS)
    return engine.state.state_dict()


@compiled
def _one_product(out, out_at, A, B):
    set_block_product(out, out_at, 2, A, 0, 3, 1, B, 0, 3)


def product_before_its_array(guard: Guard) -> None:
    """A product that is written one row too early."""
    _one_product(guard.empty(2 * LANES), -LANES, guard.empty(6), guard.empty(3 * LANES))


def main(side: str, fault: str = "") -> None:
    """Run all cases; or the first one that has a full group, with a fault."""
    if fault == "early":
        product_before_its_array(Guard(side))
    count = 0
    for make in cases():
        found = states(side, make, int(fault) if fault else None)
        for name, value in states(None, make, None).items():
            assert torch.equal(found[name], value), name
        count += 1
    print(count)


if __name__ == "__main__":
    main(*sys.argv[1:])

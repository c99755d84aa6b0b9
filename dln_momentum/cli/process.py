"""A command as a process of its own: it starts without the garbage collector, and ends at once.

Importing torch, Lightning and matplotlib makes a million objects that live as long as the process.
Python's collector walks over them again and again while they are made, and once more when the
interpreter takes itself apart: together a third of the time of a default run. Neither is of use to
a command. A library must not decide this for its user, so it is done here, for the entry points of
the command line alone: `import dln_momentum` leaves the collector as it is.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from dln_momentum.errors import InputError
from dln_momentum.extras import naming_extra

INTERRUPTED = (130, 143)
"""Codes of a command that was asked to stop, and has closed its files."""

_OWNED = [False]
"""Whether this process belongs to a command."""


def entry_point(name: str) -> Callable[[], None]:
    """What ``dln-NAME`` calls: ``main`` of ``dln_momentum.cli.NAME``, in a process of its own."""

    def run() -> None:
        _own()
        with answered():
            main = import_module(f"dln_momentum.cli.{name}").main
        run_and_leave(main)

    return run


@contextmanager
def answered() -> Iterator[None]:
    """End a command, or its import, with one line: 2 for refused input, 130 for Ctrl-C.

    A package that is not installed is answered with the extra that has it. Commands of Hydra answer
    for themselves once they are imported.
    """
    _set_streams()
    try:
        with naming_extra():
            yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130) from None


def settle() -> None:
    """All is imported: set what is there aside for good, and collect what comes after as usual.

    Nothing in a process that is not a command's.
    """
    if _OWNED[0] and not gc.isenabled():
        gc.freeze()
        gc.enable()


def import_torchmetrics() -> None:
    """Import torchmetrics, which Lightning imports, without scipy.signal; in a command's process.

    torchmetrics imports scipy.signal for the sake of another package only: it gives it a function
    ``hamming``, which SciPy has renamed. That takes longer than numpy, pandas and xarray together.
    Here it finds a module that has one; whoever imports scipy.signal later gets SciPy's.
    """
    name = "scipy.signal"
    if not _OWNED[0] or name in sys.modules or "torchmetrics" in sys.modules:
        return
    sys.modules[name] = found = ModuleType(name)
    found.hamming = None  # type: ignore[attr-defined]
    try:
        import_module("torchmetrics")
    except ImportError:
        pass  # what else a version of it wants of SciPy, it finds when Lightning imports it
    finally:
        del sys.modules[name]


def _own() -> None:
    """Stop the garbage collector until `settle`."""
    _OWNED[0] = True
    gc.disable()


class _Patient(io.FileIO):
    """A stream that drops what nobody reads any more: ``dln-verify ... | head`` closes its pipe.

    What a command computes goes into files; that its table is not read to the end is no reason to
    leave the run unfinished.
    """

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return memoryview(data).nbytes


def _set_streams() -> None:
    """Let neither a closed pipe nor a terminal without some character end a command."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # closed from the start, or replaced by a test or a notebook
        if not isinstance(stream, io.TextIOWrapper) or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        own = io.TextIOWrapper(
            io.BufferedWriter(_Patient(number, "wb", closefd=False)),
            encoding=stream.encoding,
            errors="backslashreplace" if name == "stderr" else "replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, own)


def run_and_leave(main: Callable[[], None]) -> None:
    """Run a command, and end the process without taking the interpreter apart.

    It ends as any Python process does up to that point: the exit code is that of the command,
    threads are waited for, handlers of `atexit` are called (they close loggers and files), and the
    streams are flushed.
    """
    _own()
    _set_streams()
    code = [1]  # of an exception
    process = os.getpid()

    def leave() -> None:
        # a forked worker ends as its parent's library wants it to
        if os.getpid() != process:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # a closed pipe: Python has a message and a code for it
        os._exit(code[0])

    # handlers are called in reverse order, after all threads have ended: the first one is the last
    atexit.register(leave)
    try:
        main()
        code[0] = 0
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            code[0] = ending.code or 0
        if code[0] in INTERRUPTED:
            # libraries whose import was cut short have things to say that nobody asked for
            leave()
        raise


train, flow, verify, sweep = map(entry_point, ("train", "flow", "verify", "sweep"))

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
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

from dln_momentum.cli.signals import SIGNALS, Interrupted
from dln_momentum.cli.streams import settle_streams
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
        # half imported libraries turn a KeyboardInterrupt into errors of their own
        before = {signum: signal.signal(signum, _leave_at_once) for signum in SIGNALS}
        with answered():
            main = import_module(f"dln_momentum.cli.{name}").main
        for signum, handler in before.items():
            signal.signal(signum, handler)
        run_and_leave(main)

    return run


@contextmanager
def answered() -> Iterator[None]:
    """End a command, or its import, with one line: 2 for refused input, 130 or 143 for a signal.

    A package that is not installed is answered with the extra that has it. Commands of Hydra answer
    for themselves once they are imported.
    """
    try:
        with naming_extra():
            yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, Interrupted) as ending:
        Interrupted.acknowledge()
        print("interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(ending.code if isinstance(ending, Interrupted) else 130) from None


def settle() -> None:
    """All is imported: set what is there aside for good, and collect what comes after as usual.

    Nothing in a process that is not a command's.
    """
    if _OWNED[0] and not gc.isenabled():
        gc.freeze()
        gc.enable()


def import_lightning() -> None:
    """Import Lightning without what it imports for nothing; in a command's process.

    ``torchmetrics`` imports scipy.signal for the sake of another package only: it gives it a
    function ``hamming``, which SciPy has renamed. It imports matplotlib for its types, and for
    plots that nobody asks of it. Lightning imports ``torch._dynamo``, the compiler of PyTorch, for
    a class that it asks models for which are compiled; PyTorch's optimizers ask the compiler to
    leave some of their methods alone. Nothing is compiled here. The first takes longer than numpy,
    pandas and xarray together, the others an eighth and a sixth of a default run. All find a
    stand-in meanwhile; whoever imports these modules later gets the real ones.
    """
    if not _OWNED[0]:
        return
    if "torchmetrics" not in sys.modules:
        import_module("torch")  # which looks at all modules there are
        with _standing_in("scipy.signal", hamming=None), _without_matplotlib():
            import_module("torchmetrics")
    if "lightning.pytorch" not in sys.modules:
        compiled = type("OptimizedModule", (), {})
        with _standing_in("torch._dynamo", OptimizedModule=compiled, disable=lambda f, *_, **__: f):
            import_module("lightning.pytorch")
    if "torch._dynamo" not in sys.modules:
        for method in vars(import_module("torch.optim").Optimizer).values():
            if (plain := getattr(method, "__wrapped__", None)) is not None:
                # what `torch._disable_dynamo` keeps there once it has imported the compiler
                plain.__dict__.setdefault("__dynamo_disable", plain)


@contextmanager
def _without_matplotlib() -> Iterator[None]:
    """Let a type of matplotlib be any object, and a style for a function change nothing."""
    if "matplotlib" in sys.modules:
        yield
        return
    style = SimpleNamespace(context=lambda *_: lambda function: function)
    with (
        _standing_in("matplotlib.axes", Axes=object) as axes,
        _standing_in("matplotlib.colors", Colormap=object) as colors,
        _standing_in("matplotlib.pyplot", Figure=object, style=style) as pyplot,
        _standing_in("matplotlib", __path__=[], axes=axes, colors=colors, pyplot=pyplot),
    ):
        yield


@contextmanager
def _standing_in(name: str, **content: Any) -> Iterator[ModuleType | None]:
    """Let a module that has not been imported be one with this content, where that is enough.

    Whoever keeps it, and asks it for more later, gets what the real one has.
    """
    if name in sys.modules:
        yield None
        return
    sys.modules[name] = found = ModuleType(name)

    def later(attribute: str) -> Any:
        if attribute.startswith("__") or sys.modules.get(name) is found:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        return getattr(import_module(name), attribute)

    vars(found).update(content, __getattr__=later)
    try:
        yield found
    except (ImportError, AttributeError):
        pass  # what else a version of the importer wants of it, is found when it is imported later
    finally:
        del sys.modules[name]


def _own() -> None:
    """Stop the garbage collector until `settle`; standard output outlives its reader."""
    _OWNED[0] = True
    gc.disable()
    settle_streams()


def _leave_at_once(signum: int, frame: FrameType | None) -> None:
    """End the process in one line; a handler for while nothing has been begun."""
    os.write(2, b"interrupted; nothing was written\n")
    os._exit(128 + signum)


def run_and_leave(main: Callable[[], None]) -> None:
    """Run a command, and end the process without taking the interpreter apart.

    It ends as any Python process does up to that point: the exit code is that of the command,
    threads are waited for, handlers of `atexit` are called (they close loggers and files), and the
    streams are flushed.
    """
    _own()
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


train, flow, verify, sweep, collect, plot = map(
    entry_point, ("train", "flow", "verify", "sweep", "collect", "plot")
)

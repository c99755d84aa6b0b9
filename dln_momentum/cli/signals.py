"""SIGINT and SIGTERM as one exception that no library takes for an error of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)

AGAIN = 0.01
"""Seconds after which a signal is sent again whose exception Python has ignored."""


class Interrupted(BaseException):
    """The process was asked to stop.

    Not a KeyboardInterrupt: Lightning turns that into an exit with code 1.

    Args:
        signum: the signal.
    """

    handled: ClassVar[int] = 0
    """signals since one has arrived where the job records it; 0 before"""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum

    @classmethod
    def acknowledge(cls) -> None:
        """Let nothing interrupt what is left to do: record the state, print a line."""
        cls.handled = max(cls.handled, 1)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread on SIGINT and SIGTERM.

    A signal that arrives after the first is ignored while the job records its state; one more ends
    the process at once, without a word. One that arrives in a callback of Python itself, as where
    an object is taken apart, has its exception ignored there: it is sent again a little later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    Interrupted.handled = 0
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    hook = sys.unraisablehook

    def ignored(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            number = unraisable.exc_value.code - 128
            threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()
        else:
            hook(unraisable)

    try:
        for signum in SIGNALS:
            signal.signal(signum, _stop)
        sys.unraisablehook = ignored
        yield
    finally:
        sys.unraisablehook = hook
        # a second Ctrl-C while the interpreter ends would print a traceback
        ending = Interrupted.handled > 0
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_IGN if ending else handler)


def _stop(signum: int, frame: FrameType | None) -> None:
    if not Interrupted.handled:
        raise Interrupted(signum)
    Interrupted.handled += 1
    if Interrupted.handled > 2:
        os._exit(128 + signum)

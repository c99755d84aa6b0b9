"""Tasks shared out among forks of this process: each has in memory all that is there, uncopied."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from dln_momentum.cli.signals import SIGNALS

T = TypeVar("T")
R = TypeVar("R")

LEAST = 4
"""Tasks of a fork, at least; fewer are not worth one."""

PATIENCE = 20.0
"""Seconds that a fork may take to end a task that nobody waits for."""


def results_of(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[tuple[T, R | Exception], None, None]:
    """What a function returns or raises for each task, as it comes.

    The function must leave alone what a fork cannot use: GPUs, and threads that this process has
    started. Signals are for this process: whoever stops the iteration waits until each fork has
    ended its task, and the tasks that are left are not done. So it is if this process is killed.

    Args:
        function: what it returns is sent from the forks.
        tasks: what to call it with.
        workers: processes that work at once; one is this process, and nothing is forked.

    Yields:
        Each task, and the result or the exception. Where a fork dies, one of its tasks has the
        exception for it, and the others are done in this process.

    >>> sorted(results_of(lambda task: task**2, range(9), workers=2))[:3]
    [(0, 0), (1, 1), (2, 4)]
    """
    workers = min(workers, len(tasks) // LEAST)
    if workers < 2 or not can_fork():
        for task in tasks:
            yield task, _result(function, task)
        return
    forks: dict[Any, tuple[Any, list[T]]] = {}
    ready: list[Any]
    own: list[T] = []
    try:
        for number in range(workers):
            share = list(tasks[number::workers])
            try:
                receiver, process = _fork(function, share, list(forks))
            except OSError:  # no room for one more process
                own += share
            else:
                forks[receiver] = process, share
        while forks:
            ready = wait(list(forks))
            for receiver in ready:
                process, left = forks[receiver]
                try:
                    found, note = receiver.recv()
                except (EOFError, OSError):  # between two results, in the middle of one
                    process.join()
                    del forks[receiver]
                    receiver.close()
                    if left:
                        code = process.exitcode
                        yield left[0], ChildProcessError(f"its process ended with code {code}")
                    for task in left[1:]:
                        yield task, _result(function, task)
                else:
                    if isinstance(found, Exception):
                        found.add_note(note)
                    yield left.pop(0), found
        for task in own:
            yield task, _result(function, task)
    finally:
        for receiver in forks:
            receiver.close()  # so that the next result ends the fork
        try:
            for process, _ in forks.values():
                process.join(PATIENCE)
        finally:  # also where a second signal ends the waiting
            for process, _ in forks.values():
                process.kill()
                process.join()


def can_fork() -> bool:
    """Whether forks are safe: on Linux. The frameworks of macOS do not outlive one."""
    return sys.platform == "linux"


def _fork(
    function: Callable[[T], R], tasks: Sequence[T], others: Sequence[Connection]
) -> tuple[Any, Any]:
    """A fork that does the tasks in turn, and where its results come in."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    target = (function, tasks, sender, [*others, receiver])
    process = context.Process(target=_work, args=target, daemon=True)
    with _signals_blocked(), warnings.catch_warnings():
        # of threads: those of BLAS know of forks, the others do not work now
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return receiver, process


def _work(
    function: Callable[[T], R], tasks: Sequence[T], sender: Any, receivers: Sequence[Any]
) -> None:
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    # without a reader, as when the parent is killed, sending fails
    for receiver in receivers:
        receiver.close()
    for task in tasks:
        try:
            sender.send(_portable(_result(function, task)))
        except BrokenPipeError:
            break
    sender.close()
    # neither buffers nor handlers of the parent are of any concern here
    os._exit(0)


def _result(function: Callable[[T], R], task: T) -> R | Exception:
    try:
        return function(task)
    except Exception as error:
        return error


def _portable(result: R | Exception) -> tuple[R | Exception, str]:
    """A result that can be sent, and the traceback of an exception, which cannot."""
    if not isinstance(result, Exception):
        return result, ""
    text = "".join(traceback.format_exception(result))
    try:
        return pickle.loads(pickle.dumps(result)), text
    except Exception:  # whatever the class of it does
        return RuntimeError(f"{type(result).__name__}: {result}"), text


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep signals waiting, so that none reaches a fork before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

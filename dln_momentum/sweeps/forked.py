"""Tasks shared out among forks of this process: each has in memory all that is there, uncopied."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from dln_momentum.cli.signals import SIGNALS

T = TypeVar("T")
R = TypeVar("R")

LEAST = 4
"""Tasks of a fork, at least; fewer are not worth one."""

RESULT, NOTE = "result", "note"
"""Kinds of what a fork sends."""

PATIENCE = 20.0
"""Seconds that forks may take to end tasks that nobody waits for."""


def results_of(
    function: Callable[..., R],
    tasks: Sequence[T],
    workers: int,
    *,
    least: int = LEAST,
    notes: Callable[[Any], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Generator[tuple[T, R | Exception], None, None]:
    """What a function returns or raises for each task, as it comes.

    The function must leave alone what a fork cannot use: GPUs, and threads that this process has
    started, those of torch among them (commands have one). Signals are for this process: whoever
    stops the iteration waits until each fork has ended its task, or sends a note of it, and the
    tasks that are left are not done. So it is if this process is killed. A fork that could have
    sent a note and has not yet, has nothing to end: it may be compiling for long, and is killed.

    Args:
        function: what it returns is sent from the forks.
        tasks: what to call it with.
        workers: processes that work at once; one is this process, and nothing is forked unless it
            has something to do meanwhile.
        least: tasks of a fork, at least.
        notes: called in this process with what a task has to say meanwhile; the function is then
            called with each task and with what sends a note. Nothing is said before all forks are
            there.
        meanwhile: done once in this process, as soon as all forks are there; not done without any.

    Yields:
        Each task, and the result or the exception. Where a fork dies, the task in its hands has the
        exception for it, and the others are done by those that are left, or in this process.

    >>> sorted(results_of(lambda task: task**2, range(9), workers=2))[:3]
    [(0, 0), (1, 1), (2, 4)]
    """
    workers = min(workers, len(tasks) // least)
    left = deque(tasks)
    forks: dict[Any, tuple[Any, T]] = {}
    silent = set[Any]()
    try:
        fewest = 1 if meanwhile is not None else 2
        while len(forks) < workers >= fewest and can_fork():
            try:
                pipe, process = _fork(function, tasks, notes is not None, list(forks))
            except OSError:  # no room for one more process
                break
            forks[pipe] = process, left.popleft()
            pipe.send(len(forks) - 1)
            silent |= {pipe} if notes is not None else set()
        if forks and meanwhile is not None:
            meanwhile()
        while forks:
            ready: list[Any] = wait(list(forks))
            for pipe in ready:
                silent.discard(pipe)
                process, task = forks[pipe]
                try:
                    kind, found, note = pipe.recv()
                except (EOFError, OSError):  # between two results, in the middle of one
                    process.join()
                    pipe.close()
                    del forks[pipe]
                    yield task, ChildProcessError(f"its process ended with code {process.exitcode}")
                    continue
                if kind == NOTE:
                    assert notes is not None
                    notes(found)
                    continue
                if left:
                    forks[pipe] = process, left.popleft()
                    _send(pipe, len(tasks) - len(left) - 1)
                else:
                    _send(pipe, None)
                    process.join()
                    pipe.close()
                    del forks[pipe]
                if isinstance(found, Exception):
                    found.add_note(note)
                yield task, found
        for task in left:
            yield task, _result(function, task, notes)
    finally:
        for pipe in silent:
            if not pipe.poll():  # what it has said may not have been read yet
                forks[pipe][0].kill()
        _end({pipe: process for pipe, (process, _) in forks.items()})


@contextmanager
def beside(function: Callable[[], None]) -> Iterator[None]:
    """Do something in a fork while this process goes on; it is done when the body has ended.

    For `function` the same holds as for that of `results_of`. Where there are no forks it is done
    here, before the body; where the fork dies, after it. It must not matter if it is done twice.

    Raises:
        Exception: what it raises, unless the body raises something.
    """
    pipe, process = None, None
    if can_fork():
        with suppress(OSError):  # no room for one more process
            pipe, process = _fork(lambda _: function(), [None], False, [])
            _send(pipe, 0)
    if pipe is None:
        function()
        yield
        return
    try:
        try:
            yield
        except Exception:
            pipe.poll(None)  # what fails here must not cost what is done there
            raise
        try:
            _, found, note = pipe.recv()
        except (EOFError, OSError):
            function()
        else:
            _send(pipe, None)
            if isinstance(found, Exception):
                found.add_note(note)
                raise found
    finally:
        _end({pipe: process})


def _end(forks: Mapping[Any, Any]) -> None:
    """Close the pipes of forks, so that the next result or note ends them, and wait for that."""
    for pipe in forks:
        pipe.close()
    deadline = time.monotonic() + PATIENCE
    try:
        for process in forks.values():
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # also where a second signal ends the waiting
        for process in forks.values():
            process.kill()
            process.join()


def can_fork() -> bool:
    """Whether forks are safe: on Linux, where the frameworks of macOS do not end them.

    A worker of multiprocessing that is a daemon may have none.
    """
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def _send(pipe: Connection, number: int | None) -> None:
    with suppress(OSError):  # a fork that has died is noticed where its result is waited for
        pipe.send(number)


def _fork(
    function: Callable[..., R], tasks: Sequence[Any], tells: bool, others: Sequence[Connection]
) -> tuple[Connection, Any]:
    """A fork that does tasks by their numbers, and where they go and its results come in."""
    context = multiprocessing.get_context("fork")
    own, of_fork = context.Pipe()
    target = (function, tasks, tells, of_fork, [*others, own])
    process = context.Process(target=_work, args=target, daemon=True)
    try:
        with _signals_blocked(), warnings.catch_warnings():
            # of threads: those of BLAS know of forks, the others do not work now
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except OSError:
        own.close()
        raise
    finally:
        of_fork.close()
    return own, process


def _work(
    function: Callable[..., R],
    tasks: Sequence[Any],
    tells: bool,
    pipe: Connection,
    others: Sequence[Connection],
) -> None:
    for signum in SIGNALS:  # they are blocked here, too: a library may set handlers of its own
        signal.signal(signum, signal.SIG_IGN)
    # without a reader, as when the parent is killed, sending fails
    for other in others:
        other.close()

    def tell(note: Any) -> None:
        try:
            pipe.send((NOTE, note, ""))
        except OSError:  # nobody waits for the task any more
            os._exit(0)

    with suppress(EOFError, OSError):
        while (number := pipe.recv()) is not None:
            found = _result(function, tasks[number], tell if tells else None)
            pipe.send((RESULT, *_portable(found)))
    pipe.close()
    # what tasks have printed: there was nothing in the streams when this process began
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # handlers of the parent are of no concern here
    os._exit(0)


def _result(
    function: Callable[..., R], task: Any, notes: Callable[[Any], None] | None
) -> R | Exception:
    try:
        return function(task) if notes is None else function(task, notes)
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

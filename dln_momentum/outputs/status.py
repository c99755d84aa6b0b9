"""``status.json``, which says how a job stands, and the lock that keeps others out meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any, TextIO

STATUS = "status.json"
STATES = ("running", "done", "failed", "interrupted", "refused")
"""What ``state`` may be; how the run itself ended is under ``status``, as in ``summary.json``."""


def read_status(directory: Path) -> dict[str, Any]:
    """What ``status.json`` in a directory says, empty without one.

    A job that was killed could not say so: its state is ``running``, but nobody holds the lock. It
    is returned as ``interrupted``.
    """
    try:
        found = json.loads((directory / STATUS).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    if found.get("state") == "running" and not Lock(directory).held_by_any():
        how, command = "killed, or its machine stopped", found.get("command")
        if command:
            how += f"; {command} {shlex.quote(f'resume={directory}')} continues it"
        found |= {"state": "interrupted", "message": how}
    return found


def write_status(directory: Path, values: dict[str, Any]) -> None:
    """Write ``status.json``, whole or not at all."""
    write_text(directory / STATUS, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, without the imports that larger ones need."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class Lock:
    """An exclusive lock on a directory; the system frees it when the process ends, however it does.

    Args:
        directory: must exist when the lock is acquired.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine, others = Lock(Path(folder)), Lock(Path(folder))
    ...     mine.acquire(), others.acquire(), others.held_by_any()
    ...     mine.release()
    ...     others.held_by_any(), others.acquire()
    ...     others.release()
    ...     list(Path(folder).iterdir())
    (True, False, True)
    (False, True)
    []
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"
        self._file: TextIO | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; False where another job has it, unless it is to be waited for."""
        attempts = 0
        while self._file is None:
            file = self._path.open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                # somebody may only be asking, in `held_by_any`
                if (attempts := attempts + 1) > 3:
                    return False
                time.sleep(0.02)
                continue
            # whoever has released it in between has removed the file: lock the one that is there
            if self._is_there(file):
                self._file = file
            else:
                file.close()
        return True

    def release(self) -> None:
        """Give the lock back; its file goes too."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            # forks of this process hold the same file: closing it here would not free it
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()
            self._file = None

    def held_by_any(self) -> bool:
        """Whether any process, this one included, holds the lock."""
        try:
            file = self._path.open("r")
        except OSError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _is_there(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

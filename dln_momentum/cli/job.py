"""One run of a command: its directory, its state there, and where it goes on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.process import settle
from dln_momentum.cli.saved_config import config_text, files_of, saved_hash
from dln_momentum.config import config_hash as hash_of
from dln_momentum.config import register_resolvers
from dln_momentum.errors import InputError
from dln_momentum.outputs.hdf5 import is_whole
from dln_momentum.outputs.status import Lock, read_status, write_status, write_text

log = logging.getLogger("dln_momentum")

# a launcher's worker unpickles jobs and their commands, and then composes configs
register_resolvers()


WRITTEN = (
    "config.yaml", "summary.json", "verify.json", "history.nc", "results.nc", "overview.png",
    "overview.pdf", "checkpoints", "pieces", "dashboard.tfevents",
)  # fmt: skip
"""What a run writes: a directory that holds any of it is not written to by another."""

DATASETS = ("history.nc", "results.nc")
"""Of these a job writes at most one."""


class Job:
    """One run of a command in a directory that nothing else writes to.

    The life of a job, as `Command` leads it and a launcher may: ``found_before``, which takes the
    lock of the directory; if that is None, ``begin``, the work, then ``finish``; or ``fail``,
    ``interrupt``, ``refuse``. Each of these four records the state in ``status.json`` and gives the
    lock back.

    Args:
        config: the composed config; or its values, every reference in them resolved, from which it
            is made when something needs more than values, which takes some milliseconds.
        directory: where the run writes; made when it begins.
        app: the command, as ``train``.
        result: the JSON file that is written last of all and whose ``status`` says how it ended.
        overrides: the words of the command line, for ``status.json``.
        multirun: names the multirun that the job belongs to; empty outside one.
        config_hash: `config.config_hash` of the config, if it is known.
    """

    def __init__(
        self,
        config: DictConfig | dict[str, Any],
        directory: Path,
        app: str,
        result: str = "summary.json",
        *,
        overrides: Sequence[str] = (),
        multirun: str = "",
        config_hash: str | None = None,
    ) -> None:
        self.given, self.directory, self.app, self._result = config, directory, app, result
        self.overrides, self.multirun = list(overrides), multirun
        self._lock, self._hash = Lock(directory), config_hash
        self._continues = False
        self.done_before = False
        """whether `found_before` has found the result"""
        self._started = time.perf_counter()
        self._status: dict[str, Any] = {}

    @cached_property
    def config(self) -> DictConfig:
        """The composed config."""
        if isinstance(self.given, DictConfig):
            return self.given
        made = OmegaConf.create(self.given)
        OmegaConf.set_struct(made, True)
        return made

    @cached_property
    def values(self) -> dict[str, Any]:
        """Its values, not to be changed.

        Raises:
            OmegaConfBaseException: for what cannot be resolved.
        """
        if isinstance(self.given, DictConfig):
            return OmegaConf.to_container(self.given, resolve=True)  # type: ignore[return-value]
        return self.given

    @cached_property
    def text(self) -> str:
        """What ``config.yaml`` holds, see `config_text`."""
        return config_text(self.app, self.values)

    @cached_property
    def config_hash(self) -> str:
        """`config.config_hash` of the config: what makes two jobs the same run."""
        return self._hash or hash_of(self.given)

    @cached_property
    def checkpoint(self) -> Path | None:
        """The newest readable checkpoint of an unfinished run that this job continues, if any."""
        from dln_momentum.training.resuming import newest_checkpoint

        return newest_checkpoint(self.directory / "checkpoints") if self._continues else None

    @property
    def state(self) -> str:
        """One of `STATES`; empty before the job has begun, or been refused."""
        return self._status.get("state", "")

    @property
    def resume_command(self) -> str:
        """The command line that continues this job."""
        return f"dln-{self.app} resume={shlex.quote(str(self.directory))}"

    def begin(self) -> None:
        """Write the checked config, say that the job runs, and start the clock.

        Raises:
            InputError: if another process writes to the directory.
        """
        settle()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._acquire(wait=False)
        if not self._continues:
            write_text(self.directory / "config.yaml", self.text)
        else:
            # what a killed process was about to move into place
            for pattern in (".*.n[cp]*.*", ".*.ckpt.part"):
                for unfinished in self.directory.rglob(pattern):
                    unfinished.unlink()
        self._started = time.perf_counter()
        files = files_of(self.values)
        self._record("running", started=_now(), ended=None, seconds=None, files=files)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._started

    def finish(self, found: dict[str, Any]) -> dict[str, Any]:
        """Write the result, last of all: a directory that holds it is complete."""
        from dln_momentum.outputs.files import write_json

        write_json(self.directory / self._result, found)
        # of an earlier attempt
        (self.directory / "error.txt").unlink(missing_ok=True)
        self._record("done", status=found["status"], ended=_now(), seconds=self.seconds)
        self.release()
        return found

    def fail(self, error: BaseException) -> None:
        """Record a crash: its traceback goes into ``error.txt``."""
        # a full disk must not hide what went wrong first
        with contextlib.suppress(OSError):
            text = "".join(traceback.format_exception(error))
            write_text(self.directory / "error.txt", text)
            self._end("failed", one_line(error))
        self.release()

    def interrupt(self) -> None:
        """Record that the job was asked to stop, if it had begun."""
        with contextlib.suppress(OSError):
            # without a config there is nothing to continue
            if self._lock.held and (self.directory / "config.yaml").exists():
                self._end("interrupted", f"{self.resume_command} continues it")
        self.release()

    def refuse(self, error: InputError) -> None:
        """Record that a job was refused: one of a multirun, or one that had begun.

        Any other leaves nothing behind.
        """
        with contextlib.suppress(OSError):
            # never over the state of another run
            known = self.multirun or self.state == "running"
            free = self._lock.held or not self._lock.held_by_any()
            if known and free and saved_hash(self.directory) in (None, self.config_hash):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._end("refused", one_line(error))
        self.release()

    def release(self) -> None:
        """Let others write to the directory."""
        self._lock.release()

    def found_before(self, *, wait: bool = False) -> dict[str, Any] | None:
        """The result of this very run if it is there, finished; else None, and the lock is taken.

        An unfinished run of the same config is continued by this job, see `checkpoint`.

        Args:
            wait: for another process that writes to the directory.

        Raises:
            InputError: where the directory holds anything of another run, cannot be written, or is
                being written to.
        """
        name = f"hydra.run.dir = {str(self.directory)!r}"
        if self.directory.exists() and not os.access(self.directory, os.W_OK):
            raise InputError([f"{name} must be a writable directory"])
        self.directory.mkdir(parents=True, exist_ok=True)
        self._acquire(wait=wait)
        if not any((self.directory / name).exists() for name in WRITTEN):
            return None
        if saved_hash(self.directory) != self.config_hash:
            self.release()
            raise InputError(
                [f"{name} already holds files of another run; choose an empty directory"]
            )
        self._continues = True
        found: Any = None
        with contextlib.suppress(OSError, ValueError):  # a file that something else has damaged
            found = json.loads((self.directory / self._result).read_text())
        if not isinstance(found, dict) or "status" not in found:
            if (self.directory / self._result).exists():
                log.warning("%s cannot be read; the run is done again", self._result)
            return None
        if damaged := [name for name in DATASETS if self._is_damaged(name)]:
            log.warning("%s is not as long as it was written; the run is done again", *damaged)
            return None
        self._check_files()
        self.done_before = True
        if self.multirun or read_status(self.directory).get("state") != "done":
            # the table of the multirun shows it
            with contextlib.suppress(OSError):
                self._record("done", status=found["status"], message="")
        self.release()
        return found

    def _is_damaged(self, name: str) -> bool:
        with contextlib.suppress(OSError):  # not there
            return not is_whole(self.directory / name)
        return False

    def _check_files(self) -> None:
        """Check that the files the finished run has read are what they were.

        Raises:
            InputError: naming those that are not.
        """
        now = files_of(self.values)
        then = read_status(self.directory).get("files") or {}
        changed = [name for name in then if name in now and now[name] != then[name]]
        if changed:
            self.release()
            said = f"has changed since {self.directory} was made; choose an empty directory"
            raise InputError([f"{', '.join(changed)} {said}"])

    def _acquire(self, *, wait: bool) -> None:
        if self._lock.acquire(wait=False):
            return
        writer = read_status(self.directory)
        who = f"process {writer.get('pid', '?')} on {writer.get('host', '?')}"
        if not wait:
            raise InputError(
                [f"hydra.run.dir = {str(self.directory)!r} is being written to by {who}; "
                 "wait for it, or choose another directory"]
            )  # fmt: skip
        log.info("%s is being written to by %s; waiting for it", self.directory, who)
        self._lock.acquire(wait=True)

    def _end(self, state: str, message: str) -> None:
        began = self._status.get("state") == "running"
        seconds = self.seconds if began else None
        self._record(state, ended=_now(), seconds=seconds, message=message)

    def _record(self, state: str, **values: Any) -> None:
        """Write ``status.json``; what is not given stays as it was."""
        blank = dict.fromkeys(("started", "ended", "seconds", "message", "status"))
        saved = read_status(self.directory)
        known = self._status or (saved if state == "done" else {})
        same = saved.get("config_hash") == self.config_hash
        # resume=DIR types what was typed before no more
        typed = dict.fromkeys([*(saved.get("overrides", []) if same else []), *self.overrides])
        earlier = [token for token in saved.get("multiruns", []) if token != self.multirun]
        self._status = {
            **blank,
            **known,
            "state": state,
            "command": f"dln-{self.app}",
            "overrides": known.get("overrides") or [*typed],
            "config_hash": self.config_hash,
            "host": known.get("host") or socket.gethostname(),
            "pid": known.get("pid") or os.getpid(),
            **values,
            # two multiruns may share the work at one time
            "multiruns": [*earlier[-7:], *([self.multirun] if self.multirun else [])],
        }
        write_status(self.directory, self._status)


Work = Callable[[Job], dict[str, Any]]
"""Checks the config of a job, then begins it and returns what it finishes with."""


def one_line(error: BaseException) -> str:
    """An error as one line, its kind included unless it is about the input."""
    problems = error.problems if isinstance(error, InputError) else [str(error)]
    text = "; ".join(line for problem in problems if (line := problem.strip().split("\n")[0]))
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")

"""Directories of jobs: where they are, what they hold, and why one has no result."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dln_momentum.outputs.status import read_status

RESULTS = ("summary.json", "verify.json")
"""The last file that a finished job writes."""

JOB_FILES = {"config.yaml", *RESULTS, "results.nc", "history.nc", "status.json", "error.txt"}
"""A directory that holds any of these is a job, finished or not."""

PRODUCT = "collect.json"
"""What ``dln-collect`` leaves beside its tables: such a directory holds no job."""

INSIDE = {"checkpoints", "tensorboard", "pieces"}
"""Folders inside a job, which hold no other job."""

NOT_A_SETTING = (
    "hydra", "name", "paths", "resume", "logger", "callbacks", "outputs", "sweep",
    "debug", "engine.num_workers", "engine.tile_runs", "trainer.progress", "trainer.block_size",
    "trainer.checkpoint_every", "trainer.accelerator", "optimized_metric",
)  # fmt: skip
"""Keys, or sections, of a config that change no number of a run."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableError(Exception):
    """Why a directory has no result."""


@dataclass(frozen=True, eq=False)
class Job:
    """A directory of a job, read as far as it can be.

    Attributes:
        directory: the folder.
        path: how tables and messages call it.
        config: its config with dotted keys; empty where there is none or it cannot be read.
        summary: the scalars of its result.
        reason: why it has no result; empty where it has one.
    """

    directory: Path
    path: str
    config: dict[str, Any]
    summary: dict[str, Any]
    reason: str = ""

    @property
    def kind(self) -> str:
        """The command, as ``train``."""
        return str(self.summary.get("kind", ""))


def directories(folder: Path, unreadable: list[tuple[Path, str]]) -> Iterator[Path]:
    """The directories that hold a job, finished or not, in the order of their names.

    Not searched are directories whose names begin with a dot, links to directories, and what lies
    inside a job: its checkpoints and dashboards. An empty directory of a multirun is a job that
    never began.

    Directories that cannot be listed are added to ``unreadable``, each with the reason.
    """

    def note(error: OSError) -> None:
        unreadable.append((Path(error.filename), f"cannot be listed: {error.strerror}"))

    for root, inner, files in os.walk(folder, onerror=note):
        here = Path(root)
        found = set(files) | set(inner)
        multirun = "multirun.yaml" in files
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in INSIDE)
        if PRODUCT in files:
            continue
        if found & JOB_FILES:
            yield here
        if multirun:
            yield from (here / name for name in inner if _is_empty(here / name))


def read_job(directory: Path, path: str) -> Job:
    """One directory, with the reason where it has no result; nothing is raised."""
    config: dict[str, Any] = {}
    try:
        config = read_config(directory / "config.yaml")
        return Job(directory, path, config, _summary(directory))
    except UnreadableError as error:
        return Job(directory, path, config, {}, str(error))


def read_config(path: Path) -> dict[str, Any]:
    """A saved config with dotted keys; empty where there is none.

    Raises:
        UnreadableError: where it cannot be read.
    """
    if not os.path.lexists(path):
        return {}
    try:
        found = dict(flat(_read(path, _parsed)))
    except RecursionError as error:
        raise UnreadableError("config.yaml cannot be read: it is nested too deeply") from error
    # what Hydra composes a config with is no setting of a run
    found.pop("defaults", None)
    return found


def flat(config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries by dotted keys.

    Raises:
        UnreadableError: where a part is contained in itself, or stands at two places by a YAML
            alias, which no config that a command has saved does.

    >>> dict(flat({"data": {"n": 5}, "seed": 0, "sweep": {}}))
    {'data.n': 5, 'seed': 0}
    """
    yield from _flat(config, "", set())


def _parsed(text: str) -> Any:
    """YAML, section by section: the jobs of a multirun differ in one or two sections."""
    sections = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    try:
        found = [_section(section) for section in sections if section.strip()]
        if all(isinstance(section, dict) for section in found):
            return {key: value for section in found for key, value in section.items()}
    except yaml.YAMLError:
        pass  # what refers to another section, for example
    return yaml.load(text, _Loader)


@lru_cache(maxsize=4096)
def _section(text: str) -> Any:
    return yaml.load(text, _Loader)


def is_setting(key: str) -> bool:
    """Whether a key of a config may change a number of a run.

    >>> [is_setting(key) for key in ("data.n", "paths.root", "engine.num_workers")]
    [True, False, False]
    """
    return not any(key == other or key.startswith(f"{other}.") for other in NOT_A_SETTING)


def _flat(value: Any, key: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        if id(value) in seen and value:
            raise UnreadableError(f"config.yaml cannot be read: {key} is a YAML alias")
        seen.add(id(value))
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name), seen)
        return
    if isinstance(value, list):
        for place, inner in enumerate(value):
            # lists are values; what they hold is looked at for aliases alone
            list(_flat(inner, f"{key}[{place}]", seen))
    yield key, value


def _summary(directory: Path) -> dict[str, Any]:
    """The scalars of the result of a job.

    Raises:
        UnreadableError: saying what is missing or wrong.
    """
    result = next((directory / name for name in RESULTS if _exists(directory / name)), None)
    if _exists(directory / "claim.json"):
        raise UnreadableError("an experiment; its result is claim.json")
    if result is None:
        if _exists(directory / "results.nc") and not _exists(directory / "config.yaml"):
            return {}  # what `dln.sweep` returned, saved by its user
        raise UnreadableError(_why_unfinished(directory))
    summary = _read(result, json.loads)
    if not all(isinstance(summary.get(key), str) for key in ("kind", "status")):
        raise UnreadableError(f"{result.name} has no kind and status")
    return {key: value for key, value in summary.items() if not isinstance(value, list | dict)}


def _why_unfinished(directory: Path) -> str:
    """What the job says of itself, and what its traceback ends with."""
    if _is_empty(directory):
        return "empty: the job never began"
    missing = f"without {' or '.join(RESULTS)}"
    error = directory / "error.txt"
    text = error.read_text(errors="replace").strip() if error.is_file() else ""
    last = text.splitlines()[-1] if text else ""
    status = read_status(directory)
    state = str(status.get("state") or "unfinished")
    message = str(status.get("message") or last).strip()
    return f"{state}, {missing}" + (f": {message.splitlines()[0]}" if message else "")


def _is_empty(directory: Path) -> bool:
    return os.access(directory, os.R_OK) and not any(directory.iterdir())


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """A file that holds a mapping.

    Raises:
        UnreadableError: where it does not.
    """
    if os.path.lexists(path) and not path.is_file():
        raise UnreadableError(f"{path.name} cannot be read: it is not a file")
    try:
        found = parse(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        text = text.replace(str(path), path.name) or type(error).__name__
        raise UnreadableError(f"{path.name} cannot be read: {text}") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"{path.name} is not a mapping")
    return found


def hashable(value: Any) -> Any:
    """A value of a config such that equal settings are equal.

    That are 1 and 1.0, nan and None, lists, and numbers that differ by rounding.

    >>> hashable(1) == hashable(1.0), hashable(True) == hashable(1), hashable([1, 2])
    (True, False, '[1, 2]')
    """
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float):
        return float(f"{value:.13g}")  # what follows from other settings is rounded
    return value if isinstance(value, int | str | None) else repr(value)

"""What is wrong with a config before its command reads it, and with what composes none.

A key that does not exist ends the composition, before any value is looked at. Whoever has mistyped
a key and given a wrong value is told of both at once: the words that are right by themselves are
composed without the others, and what the command would do with them is begun, up to its first file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.cli.job import Job
from dln_momentum.cli.words import Line
from dln_momentum.config import CONF_DIR, composed
from dln_momentum.config.location import options_of
from dln_momentum.config.mistakes import first_line, sound_words
from dln_momentum.config.reading import leaves
from dln_momentum.errors import InputError

if TYPE_CHECKING:
    from dln_momentum.cli.command import Command


OVERLAYS = ("experiment", "debug")
"""Groups that have no section of their own in a config."""


class _Begun(BaseException):
    """A job was about to write: there is nothing wrong with its config."""


class _Unbegun(Job):
    def begin(self) -> None:
        raise _Begun


def further_problems(command: Command, line: Line) -> list[str]:
    """What the command would refuse in the words of a line that are keys and options it has.

    Nothing where no word is left, for several jobs, and for a config of the user's own.
    """
    words = [] if line.flags else sound_words(command.app, line.words)
    if not words:
        return []
    logging.disable(logging.CRITICAL)
    try:
        config = composed(command.app, words)
        if "logger" in config:
            # a logger may write, or call its service, when it is made
            OmegaConf.update(config, "logger", {}, merge=False)
        command.work(_Unbegun(command.completed(config), Path.cwd() / "unbegun", command.app))
    except InputError as error:
        return error.problems
    except (Exception, _Begun):
        # what needs more than these words, as Hydra's own values do, is not a problem of theirs
        return []
    finally:
        logging.disable(logging.NOTSET)
    return []


def followers(config: DictConfig) -> Iterator[str]:
    """What would have one value at all points of a sweep, though it refers to a key that varies."""
    if OmegaConf.is_dict(config.get("sweep")):
        from dln_momentum.sweeps.axes import followers

        yield from followers(config)


def unusable(job: Job) -> Iterator[str]:
    """What keeps the config from being read at all."""
    if isinstance(job.given, DictConfig):
        yield from followers(job.config)
        try:
            OmegaConf.resolve(job.config)
        except OmegaConfBaseException:
            yield from _unresolved(job)
    for section in _groups(job.app, CONF_DIR):
        if not isinstance(job.given.get(section), dict | DictConfig):
            yield f"there is no {section}; its options: {', '.join(options_of(section))}"


def _unresolved(job: Job) -> Iterator[str]:
    """A line for each value that cannot be resolved."""
    for key in leaves(job.config):
        try:
            OmegaConf.select(job.config, key)
        except OmegaConfBaseException as error:
            yield first_line(job.app, error)


@cache
def _groups(app: str, folder: Path) -> list[str]:
    """The groups of a command's defaults list that have a section in every config."""
    primary: Any = OmegaConf.load(folder / f"{app}.yaml")
    named = [str(key) for entry in primary.defaults if OmegaConf.is_dict(entry) for key in entry]
    return [name for name in named if name not in OVERLAYS and (folder / name).is_dir()]

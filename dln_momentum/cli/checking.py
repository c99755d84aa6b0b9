"""What else is wrong with a command line of which Hydra composes no config.

A key that does not exist ends the composition, before any value is looked at. Whoever has mistyped
a key and given a wrong value is told of both at once: the words that are right by themselves are
composed without the others, and what the command would do with them is begun, up to its first file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from dln_momentum.cli.job import Job
from dln_momentum.cli.words import Line
from dln_momentum.config import composed
from dln_momentum.config.mistakes import sound_words
from dln_momentum.errors import InputError

if TYPE_CHECKING:
    from dln_momentum.cli.command import Command


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

"""From a command and its overrides to a config."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.config.help import register_resolvers
from dln_momentum.config.location import initialised
from dln_momentum.config.mistakes import in_words
from dln_momentum.config.momentum import with_pair
from dln_momentum.errors import InputError


def composed(app: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a command, as its command line would make it.

    Raises:
        InputError: for overrides that the command does not take.
    """
    register_resolvers()
    try:
        with initialised():
            return compose(app, with_pair(app, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(in_words(app, error, overrides)) from error

"""Composed configs, and how their values reach the classes that use and check them.

The files under `conf/` hold every key, its default and its meaning; the classes and functions that
use a value hold its type and its range. `Reader` brings the two together and lists every problem at
once. Nothing here imports torch, so a mistyped key is answered at once, and so is ``--help``.
"""

from dln_momentum.config.composing import composed
from dln_momentum.config.help import register_resolvers
from dln_momentum.config.identity import config_hash
from dln_momentum.config.location import CONF_DIR
from dln_momentum.config.momentum import momentum, with_all_rates, with_pair
from dln_momentum.config.reading import Given, Reader

__all__ = [
    "CONF_DIR",
    "Given",
    "Reader",
    "composed",
    "config_hash",
    "momentum",
    "register_resolvers",
    "with_all_rates",
    "with_pair",
]

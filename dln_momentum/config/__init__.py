"""The typed schema of every config, and the checks that need no data.

Hydra composes `conf/`; `read` turns the result into these dataclasses and complains of unknown
keys, wrong types and values out of range, all together. Nothing here imports torch, so a mistyped
key is answered at once, and so is ``--help``.
"""

from dln_momentum.config.checks import DEFAULT_BETA, DEFAULT_GAMMA, momentum
from dln_momentum.config.location import CONF_DIR, register_resolvers
from dln_momentum.config.reading import read
from dln_momentum.config.schema import (
    App,
    Arrays,
    Biased,
    Flow,
    FlowKeys,
    Gaussian,
    HeavyBallKeys,
    Model,
    Sweep,
    Train,
    Uniform,
    Verify,
)

__all__ = [
    "CONF_DIR",
    "DEFAULT_BETA",
    "DEFAULT_GAMMA",
    "App",
    "Arrays",
    "Biased",
    "Flow",
    "FlowKeys",
    "Gaussian",
    "HeavyBallKeys",
    "Model",
    "Sweep",
    "Train",
    "Uniform",
    "Verify",
    "momentum",
    "read",
    "register_resolvers",
]

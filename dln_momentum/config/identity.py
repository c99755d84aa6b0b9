"""Which run a config describes: a hash that does not depend on how or where it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.config.momentum import with_all_rates
from dln_momentum.errors import InputError

IGNORED = (
    "defaults", "hydra", "paths", "name", "optimized_metric", "trainer.progress",
    "engine.num_workers",
)  # fmt: skip
"""Keys that change where a run writes, what it prints and how fast it is, but none of its files."""

ADDED = {
    "schedule": {"name": "constant"},
    "method": {
        "name": "heavy_ball", "weight_decay": 0, "decoupled": False, "decay_until": None,
        "dampening": 0, "kappa": None,
    },
    "loss": {"name": "squared"},
}  # fmt: skip
"""Sections that earlier versions did not have, and what a config without them means."""
ADDED_NULL = (
    "sweep.gamma_u", "sweep.gamma_v", "sweep.depth", "sweep.weight_decay", "sweep.dampening",
    "trainer.margin", "trainer.gradient_tol",
)  # fmt: skip
"""Keys that earlier versions did not have either; null is what they did."""


def config_hash(config: DictConfig | Mapping[str, Any]) -> str:
    """16 hexadecimal digits that two configs share if they describe the same run.

    The momentum parameters are compared as they run, so that a saved config, which names all four,
    equals the one it comes from. Whole numbers are equal however they are written.

    Args:
        config: a config, or its values with every reference resolved.

    >>> a, b = OmegaConf.create({"seed": 0, "tol": 1}), OmegaConf.create({"tol": 1.0, "seed": 0})
    >>> config_hash(a) == config_hash(b), len(config_hash(a))
    (True, 16)
    >>> [config_hash({"seed": seed, "tol": 1}) == config_hash(a) for seed in (0, 1)]
    [True, False]
    """
    values: Any = config
    if isinstance(config, DictConfig):
        try:
            values = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException:  # refused by whoever reads it
            values = OmegaConf.to_container(config)
    with suppress(InputError, OmegaConfBaseException):  # rates out of range are refused later
        values = with_all_rates(values)
    values = dict(values)
    for key in IGNORED:
        _drop(values, key)
    for section, usual in ADDED.items():
        if values.get(section) == usual:
            del values[section]
    for key in ADDED_NULL:
        section, _, leaf = key.rpartition(".")
        if isinstance(node := values.get(section), dict) and node.get(leaf, "") is None:
            _drop(values, key)
    text = json.dumps(_canonical(values), sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _drop(values: dict[str, Any], key: str) -> None:
    """Leave a key out, of a copy of its section."""
    section, _, leaf = key.rpartition(".")
    if not section:
        values.pop(leaf, None)
    elif isinstance(node := values.get(section), dict):
        values[section] = {name: value for name, value in node.items() if name != leaf}


def _canonical(value: Any) -> Any:
    """The value with whole floats as integers and keys as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value

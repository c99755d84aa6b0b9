"""The groups and keys of a command, and what is said of a key that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.config import location
from dln_momentum.config.help import app_groups
from dln_momentum.config.location import CONF_DIR, options_of
from dln_momentum.config.reading import leaves
from dln_momentum.nearest import did_you_mean
from dln_momentum.rates import DISCRETE, OF_THE_FLOW


def known_keys(app: str, choices: Sequence[str]) -> list[str]:
    """The keys of all configs that some of the choices, one a group, compose."""
    found: dict[str, None] = {}
    for choice in choices or [""]:
        group = choice.partition("=")[0]
        others = [c for c in choices if c.partition("=")[0] != group]
        firsts = {c.partition("=")[0]: c for c in reversed(others)}
        found |= dict.fromkeys(composed_keys(app, *firsts.values(), *filter(None, [choice])).keys)
    return list(found)


class Composed(NamedTuple):
    """What a command has."""

    groups: list[str]
    keys: list[str]


def composed_keys(app: str, *words: str) -> Composed:
    """The groups of a command, and the keys of a config of it."""
    return _composed_with(tuple(location.added), app, *words)


@cache
def _composed_with(folders: tuple[Path, ...], app: str, *words: str) -> Composed:
    """To compose a config takes longer than to import all that a mistyped key needs."""
    config = compose(app, list(words), return_hydra_config=True)
    return Composed(list(app_groups(config)), list(leaves(config)))


def unknown_key(key: str, known: Sequence[str], groups: Sequence[str]) -> str:
    """A line on a key that is none of the known ones, with what may be meant."""
    own = [name for name in known if not name.startswith("hydra.")]
    section, _, leaf = key.partition(".")
    if "flow.lam" in known and "optimizer" not in groups and (leaf or key) in DISCRETE:
        return f"unknown key {key} (did you mean flow.{OF_THE_FLOW}?)"
    if not leaf and section not in groups:
        near = did_you_mean(key, [*groups, *own])
        if near and near.rstrip("?)").rpartition(" ")[2] in groups:
            return f"unknown group {key}{near}; groups: {', '.join(sorted(groups))}"
    with_key = [
        f"{section}={option}"
        for option in (options_of(section) if section in groups else [])
        if leaf in _option_keys(section, option)
    ]
    near = (
        _as_an_option(leaf, [section] if section in groups else [])
        or did_you_mean(key, known if key.startswith("hydra.") else own)
        or _as_an_option(leaf or key, groups)
    )
    near = "" if with_key else near
    hint = f", which is a key of {' and '.join(with_key)}" if with_key else ""
    return f"unknown key {key}{near}{hint}"


def _as_an_option(word: str, groups: Sequence[str]) -> str:
    """The text (did you mean GROUP=WORD?) for a word that is an option, as ``curvature=true``."""
    found = [f"{group}={word}" for group in groups if word in options_of(group)]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


@cache
def _option_keys(group: str, option: str) -> list[str]:
    """The keys that the file of an option has, with those of the files of its defaults list."""
    folders = [folder / group for folder in (*location.added, CONF_DIR)]
    paths = [path for folder in folders if (path := folder / f"{option}.yaml").is_file()]
    try:
        loaded = OmegaConf.load(paths[0]) if paths else OmegaConf.create({})
        given: Any = OmegaConf.to_container(loaded)
        bases = [each for each in given.get("defaults") or [] if isinstance(each, str)]
        own = list(leaves(loaded))
    except (OSError, AttributeError, TypeError, yaml.YAMLError, OmegaConfBaseException):
        return []
    others = [each for each in bases if each != "_self_"]
    return [*own, *(key for each in others for key in _option_keys(group, each))]

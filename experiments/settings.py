"""What the settings of an experiment may be: each like its value under ``conf/study/``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dln_momentum.config.reading import leaves
from dln_momentum.nearest import did_you_mean

FREE = ("hydra", "paths", "name", "scales")
"""Sections that are no settings, or checked elsewhere."""


def setting_errors(usual: DictConfig, given: DictConfig) -> Iterator[str]:
    """A line for each setting that the experiment does not have, or of another kind than usual.

    A number that is usually positive must be positive, one that is usually not negative must not
    be negative, and every number must be finite.

    Args:
        usual: the settings of ``conf/study/``, of the same scale.
        given: those with what the command line changes.

    >>> usual = OmegaConf.create({"alpha": 0.1, "n": 20, "num_workers": None})
    >>> given = OmegaConf.create({"alpha": -1, "n": 20, "num_workers": 0, "alhpa": 1})
    >>> for line in setting_errors(usual, given):
    ...     print(line)
    alpha = -1 must be finite and > 0
    num_workers = 0 must be null or an integer >= 1
    unknown key alhpa (did you mean alpha?)
    """
    known = list(leaves(usual))
    for key in leaves(given):
        if key.partition(".")[0] in FREE:
            continue
        value, like = (_plain(config, key) for config in (given, usual))
        if key not in known:
            yield f"unknown key {key}{did_you_mean(key, known)}"
        elif key == "num_workers":
            if value is not None and not (type(value) is int and value >= 1):
                yield f"num_workers = {value!r} must be null or an integer >= 1"
        elif value != like and (wrong := _unlike(value, like)):
            yield f"{key} = {value!r} must be {wrong}"


def _plain(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _unlike(value: Any, like: Any) -> str:
    """What a value must be to be of the kind of another; empty where it is."""
    if isinstance(like, list):
        if not isinstance(value, list) or not value:
            return f"a list, as {like}"
        wrong = {found for each in value if like and (found := _unlike(each, _least(like)))}
        return f"a list of numbers, each {min(wrong)}" if wrong else ""
    if isinstance(like, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(like, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"a number, as {like:g}"
        least = "> 0" if like > 0 else ">= 0" if like == 0 else "of any sign"
        is_right = math.isfinite(value) and (value > 0 or value == like == 0 or like <= 0 <= value)
        if isinstance(like, int) and not isinstance(value, int) and not float(value).is_integer():
            return f"an integer {least}"
        return "" if is_right or (like < 0 and math.isfinite(value)) else f"finite and {least}"
    if isinstance(like, str):
        return "" if isinstance(value, str) else f"a text, as {like}"
    return ""


def _least(values: Sequence[Any]) -> Any:
    """The least of some numbers, as an integer only if all are; else the first value."""
    if not all(isinstance(each, int | float) for each in values):
        return values[0]
    least = min(values)
    return least if all(isinstance(each, int) for each in values) else float(least)

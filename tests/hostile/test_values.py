"""Every key of every command with values of another type, sign or size: built or refused by name.

The cases are generated from the configs: a key that is added is tried too. What a command would
compute is not begun; see `tests.hostile.test_lines` for the command lines around it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from dln_momentum import InputError
from dln_momentum.config import composed
from dln_momentum.config.reading import leaves

SMALL = ["data.n=5", "data.d=8", "data.s=1"]
VALUES: list[Any] = [
    -1, 0, 1.5, math.nan, math.inf, -math.inf, 1e-200, None, True, "", "abc", "linspace:0:1:0",
    [], [[1], [2]], ["a"], {}, {"a": 1},
]  # fmt: skip
"""The sizes that take memory are cases of `tests.hostile.test_lines` and of the data's own."""
FREE = ("callbacks", "logger", "paths", "hydra", "sweep", "name", "optimized_metric")
"""Sections of the user's own, and those that the command line itself checks."""


def builder(app: str) -> Callable[[DictConfig], object]:
    """What checks a config of a command, up to where its job begins."""
    if app == "train":
        from dln_momentum.cli.setup import build

        return build
    if app == "verify":
        from dln_momentum.cli.verify import build_setting

        return build_setting
    from dln_momentum.cli.flow import flow
    from dln_momentum.cli.job import Job

    class Unbegun(Job):
        def begin(self) -> None:
            raise SystemExit

    def run(config: DictConfig) -> None:
        with pytest.raises(SystemExit):
            flow(Unbegun(config, Path("none"), "flow"))

    return run


def keys_of(app: str) -> list[str]:
    """The keys of a command that a config class reads."""
    config = composed(app, SMALL)
    return [key for key in leaves(config) if key.partition(".")[0] not in FREE]


def check(app: str, changes: dict[str, Any]) -> None:
    """A changed config is built, or refused with a message that names one of the changed keys."""
    config = composed(app, SMALL) if app not in _BASES else _BASES[app]
    _BASES[app] = config
    config = config.copy()
    for key, value in changes.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            builder(app)(config)
    except InputError as error:
        told = str(error)
        # the section stands for a value that only all its keys together explain
        names = {part for key in changes for part in (key, key.partition(".")[0])}
        assert any(name in told for name in names), (changes, told)


_BASES: dict[str, DictConfig] = {}


@pytest.mark.slow
@pytest.mark.parametrize("app", ["train", "flow", "verify"])
def test_a_value_of_any_kind_is_built_or_refused_by_name(app: str) -> None:
    for key in keys_of(app):
        # the keys of one section are enough in one command
        if app != "train" and key.partition(".")[0] in ("data", "model", "sampling", "method"):
            continue
        for value in VALUES:
            check(app, {key: value})


NUMBERS = st.one_of(
    st.integers(-3, 40), st.floats(allow_nan=True, allow_infinity=True), st.none(), st.booleans()
)
ANYTHING = st.one_of(NUMBERS, st.text(max_size=5), st.lists(NUMBERS, max_size=3))
SIZES = ("data.n", "data.d", "data.s", "data.n_test", "trainer.max_steps", "trainer.records")
"""Keys whose large values take memory: they are drawn small here."""


@pytest.mark.slow
@pytest.mark.parametrize("app", ["train", "verify"])
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_random_configs_are_built_or_refused_by_name(app: str, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(keys_of_once(app)), min_size=1, max_size=4))
    small = st.integers(-3, 40)
    check(app, {key: data.draw(small if key in SIZES else ANYTHING) for key in keys})


_KEYS: dict[str, list[str]] = {}


def keys_of_once(app: str) -> list[str]:
    """`keys_of`, composed once."""
    if app not in _KEYS:
        _KEYS[app] = keys_of(app)
    return _KEYS[app]


@pytest.mark.parametrize("key", ["optimizer.gamma", "data.rho"])
def test_one_key_of_many(key: str) -> None:
    for value in VALUES:
        check("train", {key: value})

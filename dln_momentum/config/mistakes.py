"""What is wrong with a command line that Hydra refuses, in terms of the config's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.config.help import app_groups, register_resolvers
from dln_momentum.config.location import CONF_DIR, initialised, options_of
from dln_momentum.config.momentum import with_pair
from dln_momentum.config.reading import leaves
from dln_momentum.config.renamed import renamed
from dln_momentum.errors import InputError
from dln_momentum.nearest import did_you_mean

PLUGINS = {
    "joblib": "launchers",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "optuna": "optuna",
}
"""Launchers and sweepers of Hydra's plugins, and the extra of this package that installs them."""


def mistakes(app: str, words: Sequence[str]) -> list[str]:
    """A line for each mistake in the overrides of a command.

    Args:
        app: the command's config, as ``train``.
        words: the overrides as they were typed, ``key=value`` each.

    >>> for line in mistakes("train", ["trainer.max_step=5", "engine=drect", "seed 5"]):
    ...     print(line)
    'seed 5' must be key=value
    engine=drect: no such option (did you mean direct?); options of engine: direct, gradient_sum,
    telescoped
    unknown key trainer.max_step (did you mean trainer.max_steps?)
    """
    register_resolvers()
    parser, overrides, found = OverridesParser.create(), list[Override](), list[str]()
    for word in words:
        try:
            overrides += parser.parse_overrides([word] if word[:1] != "=" else [""])
        except OverrideParseException as error:
            reason = f"has no value that can be read: {str(error).splitlines()[0]}"
            found.append(f"{word!r} {reason if '=' in word[1:] else 'must be key=value'}")
    with initialised():
        groups = list(app_groups(compose(app, return_hydra_config=True)))
        chosen = [o for o in overrides if _is_group(o.key_or_group)]
        rest = [o for o in overrides if o not in chosen]
        wrong = {o.key_or_group: [*_group_mistakes(app, o, groups)] for o in chosen}
        found += [line for lines in wrong.values() for line in lines]
        choices = [
            f"{o.key_or_group}={value}"
            for o in chosen
            if not wrong[o.key_or_group]
            for value in _values(o)
        ]
        try:
            added = with_pair(app, words)[len(words) :]
        except InputError as error:
            found += error.problems
            added, rest = [], _without_rates(rest)
        except (HydraException, OmegaConfBaseException) as error:
            found = found or [first_line(app, error)]
            added, rest = [], _without_rates(rest)
        try:
            found += _key_mistakes(app, rest, [*choices, *added], groups)
        except (HydraException, OmegaConfBaseException) as error:
            found += [] if found else [first_line(app, error)]
    return found


def in_words(app: str, error: Exception, words: Sequence[str]) -> list[str]:
    """The mistakes behind an exception of Hydra; its own first line where none is recognised."""
    return mistakes(app, words) or [first_line(app, error)]


def first_line(app: str, error: Exception) -> str:
    """What an exception of Hydra or OmegaConf says, in words of the command where they help."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    if missing := re.match(r"In '(\w+)/(\w+)': Could not override '(\w+)'", lines[0]):
        group, option, changed = missing.groups()
        return f"{group}={option} chooses {changed}, a group that dln-{app} does not have"
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", lines[0]):
        key, values = several.groups()
        return f"{key}={values} are several values: {key}=[{values}] is a list, -m a job for each"
    if app == "sweep" and re.match(r"Interpolation key 'sweep\.\w+' not found", lines[0]):
        return "the file of sweep= must begin with the line defaults: [grid, _self_]"
    return lines[0]


def _without_rates(overrides: Sequence[Override]) -> list[Override]:
    return [o for o in overrides if not o.key_or_group.startswith("optimizer.")]


def _is_group(key: str) -> bool:
    is_plugin = key in ("hydra/launcher", "hydra/sweeper")
    return is_plugin or (CONF_DIR / key).is_dir() or renamed(key) is not None


def _group_mistakes(app: str, override: Override, groups: Sequence[str]) -> Iterator[str]:
    group = override.key_or_group
    if group.startswith("hydra/"):
        yield from _plugin_mistakes(override)
        return
    if line := renamed(group):
        yield line
        return
    if group not in groups:
        yield f"dln-{app} has no group {group}; its groups: {', '.join(sorted(groups))}"
        return
    if override.is_add():
        yield f"{group} is there: leave out the +, {group}={override.get_value_element_as_str()}"
        return
    if override.is_delete():
        options = ", ".join(options_of(group))
        yield f"~{group}: a group cannot be left out; options of {group}: {options}"
        return
    for value in _values(override):
        if isinstance(value, dict):
            continue
        if line := renamed(f"{group}={value}"):
            yield line
        elif value not in (options := options_of(group)):
            yield (
                f"{group}={'null' if value is None else value}: "
                f"no such option{did_you_mean(str(value), options)}; "
                f"options of {group}: {', '.join(options)}"
            )


def _plugin_mistakes(override: Override) -> Iterator[str]:
    """Of ``hydra/launcher=`` and ``hydra/sweeper=``, what no installed plugin has."""
    group, value = override.key_or_group, override.value()
    options = GlobalHydra.instance().config_loader().get_group_options(group)
    if value in options:
        return
    if extra := PLUGINS.get(str(value)):
        yield f"{group}={value} needs a package: pip install 'dln-momentum[{extra}]'"
    else:
        near = did_you_mean(str(value), [*options, *PLUGINS])
        yield f"{group}={value}: no such option{near}; options of {group}: {', '.join(options)}"


def _key_mistakes(
    app: str, overrides: Sequence[Override], choices: Sequence[str], groups: Sequence[str]
) -> Iterator[str]:
    known = _known(app, choices)
    for override in overrides:
        key = override.key_or_group
        if line := renamed(key):
            yield line
        elif key.startswith("hydra/"):
            continue
        elif key not in known and not any(name.startswith(f"{key}.") for name in known):
            yield _unknown(app, key, known, groups)
        elif override.is_add() and not override.is_force_add():
            yield f"{key} is there: leave out the +"


def _known(app: str, choices: Sequence[str]) -> list[str]:
    """The keys of all configs that some of the choices, one a group, compose."""
    found: dict[str, None] = {}
    for choice in choices or [""]:
        group = choice.partition("=")[0]
        others = [c for c in choices if c.partition("=")[0] != group]
        firsts = {c.partition("=")[0]: c for c in reversed(others)}
        config = compose(app, [*firsts.values(), *filter(None, [choice])], True)
        found |= dict.fromkeys(leaves(config))
    return list(found)


def _unknown(app: str, key: str, known: Sequence[str], groups: Sequence[str]) -> str:
    own = [name for name in known if not name.startswith("hydra.")]
    section, _, leaf = key.partition(".")
    if not leaf and section not in groups:
        near = did_you_mean(key, [*groups, *own])
        if near and near.rstrip("?)").rpartition(" ")[2] in groups:
            return f"unknown group {key}{near}; groups: {', '.join(sorted(groups))}"
    with_key = [
        f"{section}={option}"
        for option in (options_of(section) if section in groups else [])
        if f"{section}.{leaf}" in _option_keys(app, section, option)
    ]
    near = did_you_mean(key, known if key.startswith("hydra.") else own)
    near = "" if with_key else near
    hint = f", which is a key of {' and '.join(with_key)}" if with_key else ""
    return f"unknown key {key}{near}{hint}"


def _option_keys(app: str, group: str, option: str) -> list[str]:
    try:
        return list(leaves(compose(app, [f"{group}={option}"])))
    except (HydraException, OmegaConfBaseException):
        return []


def _values(override: Override) -> list[object]:
    """The values of an override: one, or those of its sweep over choices."""
    if override.is_sweep_override():
        return list(override.sweep_iterator())
    value = override.value()
    return [OmegaConf.to_container(value) if OmegaConf.is_config(value) else value]
